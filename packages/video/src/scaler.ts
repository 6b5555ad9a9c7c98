/** @file Decoded pictures to packed RGB by swscale's BILINEAR, whose bytes are decord's at any requested size. */
import type { Frame, SoftwareScaleContext } from 'node-av/lib';
import { type Av, check } from './native.ts';

export class RgbScaler {
  readonly #av: Av;
  readonly #context: SoftwareScaleContext;
  readonly #targets = new Map<string, Frame>();

  constructor(av: Av) {
    this.#av = av;
    this.#context = new av.lib.SoftwareScaleContext();
    // Left unconfigured, swscale takes size, format, colour matrix and range from each frame, as FFmpeg's scale filter does.
    this.#context.allocContext();
    check(av, this.#context.setOption('sws_flags', 'bilinear'), 'swscale flags');
  }

  /** height x width x 3 bytes of the frame. */
  async scale(frame: Frame, width: number, height: number, offThread: boolean): Promise<Uint8Array> {
    const target = this.#target(width, height);
    const { AVCHROMA_LOC_UNSPECIFIED, AV_FRAME_FLAG_INTERLACED } = this.#av.constants;
    frame.chromaLocation = AVCHROMA_LOC_UNSPECIFIED;
    // Fields are shown woven, as a decoder gives them; swscale would scale them apart, into a target of fields.
    frame.flags &= ~AV_FRAME_FLAG_INTERLACED;
    check(
      this.#av,
      offThread ? await this.#context.scaleFrame(target, frame) : this.#context.scaleFrameSync(target, frame),
      'scaling',
    );
    return new Uint8Array(target.toBuffer());
  }

  #target(width: number, height: number): Frame {
    const name = `${width}x${height}`;
    const known = this.#targets.get(name);
    if (known) return known;
    const { lib, constants } = this.#av;
    const target = new lib.Frame();
    target.alloc();
    target.format = constants.AV_PIX_FMT_RGB24;
    target.width = width;
    target.height = height;
    check(this.#av, target.allocBuffer(), 'frame buffer');
    this.#targets.set(name, target);
    return target;
  }

  free(): void {
    for (const target of this.#targets.values()) target.free();
    this.#targets.clear();
    this.#context.freeContext();
  }
}
