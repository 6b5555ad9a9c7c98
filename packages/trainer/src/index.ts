export { runTraining, type TrainOptions } from './train.ts';
