import { describeEngine } from './engine-suite.ts';
import { onnxEngine } from './engines.ts';

describeEngine(onnxEngine(2));
