/**
 * @file Exact frame access: seek to the key frame before the wanted time stamp, decode until a frame carries exactly that time
 * stamp; a miss is tried again from earlier key frames, at last from the first byte.
 */
import { messageOf } from '@frame-thinker/core';
import type { CodecContext, Frame, Packet } from 'node-av/lib';
import { CountedDamageTracker, DamageTracker } from './damage.ts';
import { type Demuxer, openDemuxer } from './demuxer.ts';
import { FrameUnavailableError } from './errors.ts';
import { type Av, check, createBreather, loadAv, NO_TIMESTAMP } from './native.ts';
import { orient, swapsSides } from './orientation.ts';
import type { PacketIndex } from './packet-index.ts';
import { RgbScaler } from './scaler.ts';
import { lastAtMost } from './sorted.ts';
import type { RgbFrame } from './types.ts';

export interface Size {
  width: number;
  height: number;
}

/** A frame or why it is not there, for each index that was asked for. */
export type DecodeResult = Map<number, RgbFrame | FrameUnavailableError>;

/** What the reader and the frame store need of a decoder. Calls must not overlap. */
export interface FrameDecoder {
  decode(indices: readonly number[], size: Size): Promise<DecodeResult>;
  close(): void;
}

/** Earlier key frames to try before starting over at the first byte. */
const KEYS_BACK = 3;
/** From this picture size on, decoding one packet is worth the trip to another thread. */
const OFF_THREAD_PIXELS = 200_000;

export class ExactDecoder implements FrameDecoder {
  readonly #av: Av;
  readonly #path: string;
  readonly #index: PacketIndex;
  readonly #packet: Packet;
  readonly #frame: Frame;
  readonly #scaler: RgbScaler;
  readonly #offThread: boolean;
  readonly #maySkip: boolean;
  readonly #unavailable = new Set<number>();
  #demuxer: Demuxer;
  #codec: CodecContext;
  /** Position of the last frame that came out; -Infinity after a seek. */
  #position = Number.NEGATIVE_INFINITY;
  /** Key frame from which the decoder came to its position; undefined when nothing can be continued. */
  #key: number | undefined;
  #fromFirstByte = false;
  #counted = 0;
  #skipping = false;
  readonly #damage: DamageTracker | CountedDamageTracker;
  /** The frame that came out last is what was encoded. */
  #isClean = true;
  #wanted = new Set<number>();

  private constructor(av: Av, path: string, index: PacketIndex) {
    this.#av = av;
    this.#path = path;
    this.#index = index;
    this.#demuxer = openDemuxer(av, path);
    try {
      this.#codec = this.#openCodec();
    } catch (error) {
      this.#demuxer.format.closeInputSync();
      throw error;
    }
    this.#packet = new av.lib.Packet();
    this.#packet.alloc();
    this.#frame = new av.lib.Frame();
    this.#frame.alloc();
    this.#scaler = new RgbScaler(av);
    this.#offThread = index.width * index.height >= OFF_THREAD_PIXELS;
    this.#damage = index.sequential ? new CountedDamageTracker() : new DamageTracker(index.keys);
    this.#maySkip = !index.sequential && nonReferenceIsSafe(index.codec, this.#demuxer.stream.codecpar.extradata);
  }

  /** @throws InputError when the file cannot be opened. */
  static async open(path: string, index: PacketIndex): Promise<ExactDecoder> {
    return new ExactDecoder(await loadAv(), path, index);
  }

  #openCodec(): CodecContext {
    const { lib } = this.#av;
    const { codecpar, timeBase } = this.#demuxer.stream;
    const decoder = lib.Codec.findDecoder(codecpar.codecId);
    if (!decoder) throw new Error(`no decoder for ${this.#index.codec}`);
    const codec = new lib.CodecContext();
    codec.allocContext3(decoder);
    check(this.#av, codec.parametersToContext(codecpar), 'codec parameters');
    // Frame threads decode ahead of a seek in vain: one thread a reader, several readers at once.
    codec.threadCount = 1;
    codec.pktTimebase = timeBase;
    check(this.#av, codec.open2Sync(decoder, null), 'opening the decoder');
    return codec;
  }

  async decode(indices: readonly number[], { width, height }: Size): Promise<DecodeResult> {
    const { pts, orientation } = this.#index;
    const result: DecodeResult = new Map();
    const ascending = [...new Set(indices)].sort((a, b) => a - b);
    this.#wanted = new Set(ascending.map((i) => pts[i] ?? Number.NaN));
    const coded = swapsSides(orientation) ? { width: height, height: width } : { width, height };
    for (const i of ascending) {
      const target = pts[i];
      if (target === undefined) {
        result.set(i, new FrameUnavailableError(this.#path, i, `the video has ${pts.length} frames`));
        continue;
      }
      try {
        if (this.#unavailable.has(i) || !(await this.#reach(target))) {
          this.#unavailable.add(i);
          result.set(i, new FrameUnavailableError(this.#path, i, 'its packets do not decode; the file may be damaged'));
          continue;
        }
        const pixels = await this.#scaler.scale(this.#frame, coded.width, coded.height, this.#offThread);
        result.set(i, { index: i, width, height, data: orient(pixels, coded, orientation) });
      } catch (error) {
        this.#key = undefined;
        result.set(i, new FrameUnavailableError(this.#path, i, messageOf(error)));
      }
    }
    return result;
  }

  /** Brings the frame at `target` into #frame. */
  async #reach(target: number): Promise<boolean> {
    if (this.#index.sequential) {
      if (!this.#fromFirstByte || this.#key === undefined || this.#position >= target) this.#reopen();
      return this.#advance(target);
    }
    const key = lastAtMost(this.#index.keys, target);
    const continues = this.#key !== undefined && this.#position < target && key <= this.#key;
    if (continues && (await this.#advance(target))) return true;
    for (let k = key; k >= 0 && k > key - KEYS_BACK; k--)
      if (this.#seek(k) && (await this.#advance(target))) return true;
    this.#reopen();
    return this.#advance(target);
  }

  #seek(key: number): boolean {
    const { constants } = this.#av;
    const { format, stream } = this.#demuxer;
    this.#key = undefined;
    if (format.seekFrameSync(stream.index, BigInt(this.#index.keys[key]!), constants.AVSEEK_FLAG_BACKWARD) < 0)
      return false;
    this.#restart(key);
    this.#fromFirstByte = false;
    return true;
  }

  /** Some containers (MPEG-TS) cannot be sought back to their start: open the file again. */
  #reopen(): void {
    this.#key = undefined;
    this.#demuxer.format.closeInputSync();
    this.#demuxer = openDemuxer(this.#av, this.#path);
    // One that was read to its end may keep a picture over a flush (HEVC), and where frames are counted that is one too many.
    this.#codec.freeContext();
    this.#codec = this.#openCodec();
    this.#skipping = false;
    this.#restart(0);
    this.#fromFirstByte = true;
    this.#counted = 0;
  }

  #restart(key: number): void {
    this.#codec.flushBuffers();
    this.#key = key;
    this.#position = Number.NEGATIVE_INFINITY;
    this.#damage.restart();
  }

  /** Decodes on until the frame at `target`; false when it does not come. */
  async #advance(target: number): Promise<boolean> {
    const breathe = createBreather(8);
    while (await this.#next()) {
      await breathe();
      if (this.#position > target) return false;
      if (this.#position < target) continue;
      this.#followKeys(target);
      return this.#isClean;
    }
    this.#key = undefined;
    return false;
  }

  #followKeys(position: number): void {
    const { keys, sequential } = this.#index;
    if (!sequential) this.#key = Math.max(this.#key ?? 0, lastAtMost(keys, position));
  }

  /** The next frame in display order into #frame; false at the end. */
  async #next(): Promise<boolean> {
    const { AVERROR_EOF } = this.#av.constants;
    for (;;) {
      const received = this.#codec.receiveFrameSync(this.#frame);
      if (received >= 0) {
        const { pts, bestEffortTimestamp } = this.#frame;
        this.#position = this.#index.sequential
          ? this.#counted++
          : Number(pts === NO_TIMESTAMP ? bestEffortTimestamp : pts);
        const { AV_FRAME_FLAG_CORRUPT, AV_FRAME_FLAG_KEY } = this.#av.constants;
        const { decodeErrorFlags, flags } = this.#frame;
        this.#isClean = this.#damage.received(this.#position, {
          whole: decodeErrorFlags === 0 && (flags & AV_FRAME_FLAG_CORRUPT) === 0,
          key: (flags & AV_FRAME_FLAG_KEY) !== 0,
        });
        return true;
      }
      if (received === AVERROR_EOF) return false;
      await this.#feed();
    }
  }

  /** Sends the next packet of the stream; damaged ones are passed over, as in sequential decoding. */
  async #feed(): Promise<void> {
    const { format, stream } = this.#demuxer;
    while (format.readFrameSync(this.#packet) >= 0) {
      const ours = this.#packet.streamIndex === stream.index;
      if (ours) {
        this.#skipNonReference(!this.#wanted.has(Number(this.#packet.pts)));
        const sent = this.#offThread
          ? await this.#codec.sendPacket(this.#packet)
          : this.#codec.sendPacketSync(this.#packet);
        this.#damage.sent(Number(this.#packet.pts), sent >= 0);
      }
      this.#packet.unref();
      if (ours) return;
    }
    this.#codec.sendPacketSync(null);
  }

  /** Frames that no other frame refers to and nobody asked for need not be decoded. */
  #skipNonReference(skip: boolean): void {
    if (!this.#maySkip || skip === this.#skipping) return;
    this.#codec.setOption('skip_frame', skip ? 'noref' : 'default');
    this.#skipping = skip;
  }

  close(): void {
    this.#packet.free();
    this.#frame.free();
    this.#scaler.free();
    this.#codec.freeContext();
    this.#demuxer.format.closeInputSync();
  }
}

/**
 * HEVC calls a picture "non-reference" within its temporal sub-layer only: a higher sub-layer may still refer to it. The
 * configuration record (hvcC, byte 21, bits 3-5) tells the number of sub-layers; without one nothing is skipped.
 */
function nonReferenceIsSafe(codec: string, extradata: Uint8Array | null): boolean {
  if (codec !== 'hevc') return true;
  const layers = extradata?.[0] === 1 ? ((extradata[21] ?? 0) >> 3) & 7 : 0;
  return layers === 1;
}
