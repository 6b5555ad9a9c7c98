import { onnxEngine } from '../engines/engines.ts';
import { describeQwenModel } from './qwen-model-cases.ts';

describeQwenModel(onnxEngine());
