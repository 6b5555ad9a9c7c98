import { onnxEngine } from '../engines/engines.ts';
import { describeGrpoUpdate } from './grpo-update-cases.ts';

describeGrpoUpdate(onnxEngine());
