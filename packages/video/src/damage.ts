/** @file Which frames may show damage: their own packet did not decode whole, or one that they may refer to. */
import { lastAtMost } from './sorted.ts';

export interface DecodedState {
  /** No error and no missing reference while it was decoded. */
  whole: boolean;
  /** The decoder calls it a key frame. */
  key: boolean;
}

/** A packet's place in decoding order, and when it is shown. */
interface Place {
  order: number;
  pts: number;
}

/**
 * Packets are told in decoding order, frames in display order. What is decoded after a damaged packet may refer to it, up to the
 * next key packet. What is decoded after a key packet and shown before it (its leading pictures) may refer to what was before, and nothing
 * but its like refers to it. Damage that the decoder itself does not notice is not told.
 */
export class DamageTracker {
  readonly #keys: Float64Array;
  readonly #order = new Map<number, number>();
  #sent = 0;
  /** Key packets of which frames are still to come. */
  #sentKeys: Place[] = [];
  /** The first damaged packet that no key frame has followed yet, and the last. */
  #firstDamage = Number.POSITIVE_INFINITY;
  #lastDamage = -1;
  /** Order of the key packet that has damaged leading pictures. */
  #leadingOf = -1;

  constructor(keys: Float64Array) {
    this.#keys = keys;
  }

  /** After a seek. */
  restart(): void {
    this.#order.clear();
    this.#sent = 0;
    this.#sentKeys = [];
    this.#leadingOf = -1;
    this.#heal();
  }

  #heal(): void {
    this.#firstDamage = Number.POSITIVE_INFINITY;
    this.#lastDamage = -1;
  }

  sent(pts: number, decoded: boolean): void {
    const place = { order: this.#sent++, pts };
    this.#order.set(pts, place.order);
    if (!decoded) this.#damage(place);
    else if (this.#keys[lastAtMost(this.#keys, pts)] === pts) this.#sentKeys.push(place);
  }

  /** The key packet before a place, if it is shown after it. */
  #leads({ order, pts }: Place): Place | undefined {
    const key = this.#sentKeys.findLast((sent) => sent.order < order);
    return key && pts < key.pts ? key : undefined;
  }

  #damage(place: Place): void {
    const key = this.#leads(place);
    if (key) {
      this.#leadingOf = key.order;
      return;
    }
    this.#firstDamage = Math.min(this.#firstDamage, place.order);
    this.#lastDamage = Math.max(this.#lastDamage, place.order);
  }

  /** Whether the frame that came out is what was encoded, as far as can be told. */
  received(pts: number, { whole }: Pick<DecodedState, 'whole'>): boolean {
    const place = { order: this.#order.get(pts) ?? this.#sent, pts };
    this.#order.delete(pts);
    if (!whole) this.#damage(place);
    const healing = this.#sentKeys.find(({ order }) => order > this.#lastDamage);
    if (this.#lastDamage >= 0 && healing && place.order >= healing.order && pts >= healing.pts) this.#heal();
    // Frames come in display order: no more of what is before the key packet before this one.
    while (this.#sentKeys.length > 1 && this.#sentKeys[1]!.pts <= pts) this.#sentKeys.shift();
    const leading = this.#leads(place)?.order === this.#leadingOf;
    return whole && !leading && place.order < this.#firstDamage;
  }
}

/** The same where frames are counted: a packet that gave none has moved the count for good; damage lasts until the next key frame. */
export class CountedDamageTracker {
  #lost = false;
  #damaged = false;

  restart(): void {
    this.#lost = false;
    this.#damaged = false;
  }

  sent(_pts: number, decoded: boolean): void {
    if (!decoded) this.#lost = true;
  }

  received(_pts: number, { whole, key }: DecodedState): boolean {
    this.#damaged = !whole || (this.#damaged && !key);
    return !this.#lost && !this.#damaged;
  }
}
