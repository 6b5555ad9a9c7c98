/**
 * @file The exact names that a file of torch.save may use where it holds a state dict: tensors, DTensors and
 * ShardedTensors of torch 2.6 to 2.15. They are read as data; none is imported.
 */
import type { GlobalUse } from '@frame-thinker/pickle';
import type { Dtype } from './dtype.ts';

/** Element type of each storage class; null: known, but not a type that is read. */
export const STORAGE_DTYPES: ReadonlyMap<string, Dtype | null> = new Map<string, Dtype | null>([
  ['torch DoubleStorage', 'F64'],
  ['torch FloatStorage', 'F32'],
  ['torch BFloat16Storage', 'BF16'],
  ['torch HalfStorage', 'F16'],
  ['torch LongStorage', 'I64'],
  ['torch IntStorage', 'I32'],
  ['torch ByteStorage', 'U8'],
  ['torch BoolStorage', 'BOOL'],
  ['torch ShortStorage', null],
  ['torch CharStorage', null],
]);

/** Element type of each torch.dtype; null: known, but not a type that is read. */
export const TORCH_DTYPES: ReadonlyMap<string, Dtype | null> = new Map<string, Dtype | null>([
  ['torch float64', 'F64'],
  ['torch float32', 'F32'],
  ['torch bfloat16', 'BF16'],
  ['torch float16', 'F16'],
  ['torch int64', 'I64'],
  ['torch int32', 'I32'],
  ['torch uint8', 'U8'],
  ['torch bool', 'BOOL'],
  ['torch int16', null],
  ['torch int8', null],
]);

export const REBUILD_TENSOR = 'torch._utils _rebuild_tensor_v2';
export const REBUILD_PARAMETER = 'torch._utils _rebuild_parameter';
export const REBUILD_WRAPPER = 'torch._utils _rebuild_wrapper_subclass';
export const REBUILD_FROM_TYPE = 'torch._tensor _rebuild_from_type_v2';
export const TENSOR = 'torch Tensor';
export const PARAMETER = 'torch.nn.parameter Parameter';
export const DTENSOR = 'torch.distributed.tensor DTensor';
export const SIZE = 'torch Size';
export const SHARDED_TENSOR = 'torch.distributed._shard.sharded_tensor.api ShardedTensor';
export const SHARD = 'torch.distributed.tensor.placement_types Shard';
export const REPLICATE = 'torch.distributed.tensor.placement_types Replicate';

const SHARDED = 'torch.distributed._shard';

export const TORCH_GLOBALS: ReadonlyMap<string, readonly GlobalUse[]> = new Map<string, readonly GlobalUse[]>([
  ['collections OrderedDict', ['dict']],
  ...[...STORAGE_DTYPES.keys()].map((id): [string, GlobalUse[]] => [id, ['value']]),
  ...[...TORCH_DTYPES.keys()].map((id): [string, GlobalUse[]] => [id, ['value']]),
  [REBUILD_TENSOR, ['value', 'call']],
  [REBUILD_PARAMETER, ['call']],
  [REBUILD_WRAPPER, ['value']],
  [REBUILD_FROM_TYPE, ['call']],
  [TENSOR, ['value']],
  [PARAMETER, ['value']],
  [SIZE, ['call']],
  ['torch device', ['call']],
  ['torch.serialization _get_layout', ['call']],
  [DTENSOR, ['value']],
  ['torch.distributed.tensor._dtensor_spec DTensorSpec', ['class']],
  ['torch.distributed.tensor._dtensor_spec TensorMeta', ['class']],
  ['torch.distributed.tensor._dtensor_spec ShardOrderEntry', ['class']],
  ['torch.distributed.device_mesh DeviceMesh', ['class']],
  ['torch.distributed._mesh_layout _MeshLayout', ['class']],
  ['torch.distributed._mesh_layout _FlatLayout', ['class']],
  [SHARD, ['class']],
  [REPLICATE, ['class']],
  [SHARDED_TENSOR, ['value']],
  // Protocol 2 names a class within a class by a call of getattr.
  ['__builtin__ getattr', ['member']],
  [`${SHARDED_TENSOR}.ProcessGroupState`, ['class']],
  [`${SHARDED}.sharded_tensor.shard Shard`, ['class']],
  [`${SHARDED}.metadata ShardMetadata`, ['class']],
  [`${SHARDED}.sharded_tensor.metadata ShardedTensorMetadata`, ['class']],
  [`${SHARDED}.sharded_tensor.metadata TensorProperties`, ['class']],
  [`${SHARDED}.sharded_tensor.metadata MEM_FORMAT_ENCODING`, ['call']],
  [`${SHARDED}.sharding_spec.chunk_sharding_spec ChunkShardingSpec`, ['class']],
  [`${SHARDED}.sharding_spec.api EnumerableShardingSpec`, ['class']],
  ['torch.distributed.remote_device _remote_device', ['class']],
]);
