/** @file Policy losses by verl's names. */
import { checkLengths } from '../rows.ts';
import type { PolicyLoss } from '../types.ts';
import { bypassMode } from './bypass.ts';
import { cispo, dppoKl, dppoTv, geoMean, gspo, vanilla } from './clipped.ts';
import { clipCov, dro, gpgLoss, klCov, reinforce, sapo } from './unclipped.ts';

const checked =
  (name: string, loss: PolicyLoss): PolicyLoss =>
  (input, options) => {
    const { mask, ...rows } = input;
    checkLengths(`policy loss ${name}`, mask, rows);
    return loss(input, options);
  };

/** Policy losses by verl's names (`policy_loss.loss_mode`); `reinforce` is the one that bypass_mode uses. */
export const POLICY_LOSSES: ReadonlyMap<string, PolicyLoss> = new Map(
  Object.entries({
    vanilla,
    gspo,
    sapo,
    gpg: gpgLoss,
    clip_cov: clipCov,
    kl_cov: klCov,
    geo_mean: geoMean,
    cispo,
    reinforce,
    bypass_mode: bypassMode,
    dppo_tv: dppoTv,
    dppo_kl: dppoKl,
    dro,
  }).map(([name, loss]) => [name, checked(name, loss)]),
);
