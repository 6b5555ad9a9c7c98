import { describeEngine } from './engine-suite.ts';
import { tfjsEngine } from './engines.ts';
import { describeTensorUse } from './tfjs-suite.ts';

describeEngine(tfjsEngine('wasm'));
describeTensorUse(tfjsEngine('wasm'));
