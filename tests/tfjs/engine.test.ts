import { describeEngine } from '../engines/engine-suite.ts';
import { nativeTfjsEngine } from '../engines/engines.ts';
import { describeTensorUse } from '../engines/tfjs-suite.ts';

describeEngine(nativeTfjsEngine(2));
describeTensorUse(nativeTfjsEngine(2));
