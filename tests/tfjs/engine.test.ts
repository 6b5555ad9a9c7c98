import { describeEngine } from '../engines/engine-suite.ts';
import { tfjsEngine } from '../engines/engines.ts';
import { describeTensorUse } from '../engines/tfjs-suite.ts';

describeEngine(tfjsEngine('node', 2));
describeTensorUse(tfjsEngine('node', 2));
