/** @file Encoding a scene in process: one thread and no wall-clock metadata, so that the same scene gives the same bytes. */
import { resolve } from 'node:path';
import { type Av, check, createBreather, loadAv } from './native.ts';
import { createPainter, frameRate } from './scene-painter.ts';
import type { Scene } from './types.ts';

export interface EncodeOptions {
  /** FFmpeg's encoder name, such as `libx264`. */
  encoder: string;
  /** The encoder's options by FFmpeg's names. */
  encoderOptions: Readonly<Record<string, string>>;
  /** FFmpeg's muxer name and options. */
  format: string;
  formatOptions?: Readonly<Record<string, string>>;
  gop: number;
  bFrames: number;
  /** Presentation time of a frame in units of 1/fps, default its number; ascending. Negative times are hidden by an edit list (mp4). */
  timeOf?: (frame: number) => number;
  /** FFmpeg's display matrix: nine int32 as 36 little-endian bytes. */
  displayMatrix?: Uint8Array;
  onProgress?: (done: number, total: number) => void;
}

/** Encodes the scene to `path`, which must not be read before this has ended. @throws Error with FFmpeg's reason. */
export async function encodeScene(scene: Scene, path: string, options: EncodeOptions): Promise<void> {
  const av = await loadAv();
  const { lib, constants } = av;
  const paint = createPainter(scene);
  const rate = frameRate(scene.fps);
  const codec = openEncoder(av, scene, options);
  const muxer = new lib.FormatContext();
  const frame = new lib.Frame();
  const packet = new lib.Packet();
  try {
    check(av, muxer.allocOutputContext2(null, options.format, `file:${resolve(path)}`), `format ${options.format}`);
    const stream = muxer.newStream(null);
    check(av, stream.codecpar.fromContext(codec), 'codec parameters');
    if (options.displayMatrix)
      check(
        av,
        stream.codecpar.addCodedSideData(constants.AV_PKT_DATA_DISPLAYMATRIX, Buffer.from(options.displayMatrix)),
        'display matrix',
      );
    stream.timeBase = codec.timeBase;
    stream.avgFrameRate = codec.framerate;
    setOptions(av, muxer, options.formatOptions ?? {}, options.format);
    check(av, muxer.openOutputSync(), path);
    check(av, muxer.writeHeaderSync(null), path);

    frame.alloc();
    frame.format = constants.AV_PIX_FMT_YUV420P;
    frame.width = scene.width;
    frame.height = scene.height;
    check(av, frame.allocBuffer(), 'frame buffer');
    packet.alloc();
    const from = { num: rate.den, den: rate.num };
    const to = stream.timeBase;
    const drain = (): void => {
      while (codec.receivePacketSync(packet) >= 0) {
        packet.streamIndex = stream.index;
        packet.rescaleTs(from, to);
        check(av, muxer.writeFrameSync(packet), path);
        packet.unref();
      }
    };
    const planes = { data: frame.data!, strides: frame.linesize };
    const breathe = createBreather(20);
    for (let i = 0; i < scene.frames; i++) {
      // The encoder has copied the last picture by now (its packets are drained), so the buffers may change.
      paint(i, planes);
      frame.pts = BigInt(options.timeOf?.(i) ?? i);
      check(av, codec.sendFrameSync(frame), `encoding frame ${i}`);
      drain();
      if (i % 240 === 0) options.onProgress?.(i, scene.frames);
      await breathe();
    }
    check(av, codec.sendFrameSync(null), 'encoding');
    drain();
    check(av, muxer.writeTrailerSync(), path);
    options.onProgress?.(scene.frames, scene.frames);
  } finally {
    muxer.closeOutputSync();
    muxer.freeContext();
    codec.freeContext();
    frame.free();
    packet.free();
  }
}

function openEncoder(av: Av, scene: Scene, { encoder, encoderOptions, gop, bFrames }: EncodeOptions) {
  const { lib, constants } = av;
  const found = lib.Codec.findEncoderByName(encoder as Parameters<typeof lib.Codec.findEncoderByName>[0]);
  if (!found) throw new Error(`this FFmpeg has no encoder ${encoder}`);
  const rate = frameRate(scene.fps);
  const codec = new lib.CodecContext();
  codec.allocContext3(found);
  codec.width = scene.width;
  codec.height = scene.height;
  codec.pixelFormat = constants.AV_PIX_FMT_YUV420P;
  codec.timeBase = new lib.Rational(rate.den, rate.num);
  codec.framerate = new lib.Rational(rate.num, rate.den);
  codec.gopSize = gop;
  codec.maxBFrames = bFrames;
  codec.threadCount = 1;
  codec.setFlags(constants.AV_CODEC_FLAG_GLOBAL_HEADER);
  // As options of the context: node-av frees a dictionary twice that was passed to open2 (a crash at exit).
  setOptions(av, codec, encoderOptions, encoder);
  check(av, codec.open2Sync(found, null), `opening the encoder ${encoder}`);
  return codec;
}

function setOptions(
  av: Av,
  target: { setOption(name: string, value: string): number },
  options: Readonly<Record<string, string>>,
  owner: string,
): void {
  for (const [name, value] of Object.entries(options))
    check(av, target.setOption(name, value), `${owner} option ${name}=${value}`);
}
