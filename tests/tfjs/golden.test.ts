import { nativeTfjsEngine } from '../engines/engines.ts';
import { describeGrpoUpdate } from '../golden/grpo-update-cases.ts';
import { describeQwenModel } from '../golden/qwen-model-cases.ts';

describeQwenModel(nativeTfjsEngine());
describeGrpoUpdate(nativeTfjsEngine());
