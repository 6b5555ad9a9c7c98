;; SPDX-License-Identifier: Apache-2.0
;; The arithmetic over the flat memory of a ParameterSet. Counts are multiples of 16 elements; addresses are byte offsets.
(module
  (import "engine" "memory" (memory 1 65536))

  ;; The sum of squares of n float64 values at g.
  (func (export "sum_of_squares") (param $g i32) (param $n i32) (result f64)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128) (local $x v128)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (local.set $x (v128.load offset=0 (local.get $g)))
        (local.set $a (f64x2.add (local.get $a) (f64x2.mul (local.get $x) (local.get $x))))
        (local.set $x (v128.load offset=16 (local.get $g)))
        (local.set $b (f64x2.add (local.get $b) (f64x2.mul (local.get $x) (local.get $x))))
        (local.set $x (v128.load offset=32 (local.get $g)))
        (local.set $c (f64x2.add (local.get $c) (f64x2.mul (local.get $x) (local.get $x))))
        (local.set $x (v128.load offset=48 (local.get $g)))
        (local.set $d (f64x2.add (local.get $d) (f64x2.mul (local.get $x) (local.get $x))))
        (local.set $g (i32.add (local.get $g) (i32.const 64)))
        (local.set $n (i32.sub (local.get $n) (i32.const 8)))
        (br $next)))
    (local.set $a (f64x2.add (f64x2.add (local.get $a) (local.get $b)) (f64x2.add (local.get $c) (local.get $d))))
    (f64.add (f64x2.extract_lane 0 (local.get $a)) (f64x2.extract_lane 1 (local.get $a))))

  ;; One step over n elements. With g = f32(scale * gradient):
  ;;   m += c1 (g - m);  v = b2 v + c2 g²;  p = keep * p - rate * m / (sqrt(v) * rsqrt2 + eps)
  ;; where c1 = 1 - beta1, c2 = 1 - beta2, keep = 1 - lr * weight decay, rate = lr / (1 - beta1^t),
  ;; rsqrt2 = 1 / sqrt(1 - beta2^t). The gradients are zeroed.
  (func (export "adamw")
    (param $p i32) (param $m i32) (param $v i32) (param $g i32) (param $n i32) (param $scale f64)
    (param $c1 f32) (param $b2 f32) (param $c2 f32) (param $keep f32) (param $rate f32) (param $rsqrt2 f32) (param $eps f32)
    (local $SCALE v128) (local $C1 v128) (local $B2 v128) (local $C2 v128)
    (local $KEEP v128) (local $RATE v128) (local $RSQRT2 v128) (local $EPS v128)
    (local $gv v128) (local $mv v128) (local $vv v128)
    (local.set $SCALE (f64x2.splat (local.get $scale)))
    (local.set $C1 (f32x4.splat (local.get $c1)))
    (local.set $B2 (f32x4.splat (local.get $b2)))
    (local.set $C2 (f32x4.splat (local.get $c2)))
    (local.set $KEEP (f32x4.splat (local.get $keep)))
    (local.set $RATE (f32x4.splat (local.get $rate)))
    (local.set $RSQRT2 (f32x4.splat (local.get $rsqrt2)))
    (local.set $EPS (f32x4.splat (local.get $eps)))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (local.set $gv
          (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23
            (f32x4.demote_f64x2_zero (f64x2.mul (local.get $SCALE) (v128.load offset=0 (local.get $g))))
            (f32x4.demote_f64x2_zero (f64x2.mul (local.get $SCALE) (v128.load offset=16 (local.get $g))))))
        (v128.store offset=0 (local.get $g) (v128.const i64x2 0 0))
        (v128.store offset=16 (local.get $g) (v128.const i64x2 0 0))
        (local.set $mv (v128.load (local.get $m)))
        (local.set $mv
          (f32x4.add (local.get $mv) (f32x4.mul (local.get $C1) (f32x4.sub (local.get $gv) (local.get $mv)))))
        (v128.store (local.get $m) (local.get $mv))
        (local.set $vv
          (f32x4.add
            (f32x4.mul (local.get $B2) (v128.load (local.get $v)))
            (f32x4.mul (local.get $C2) (f32x4.mul (local.get $gv) (local.get $gv)))))
        (v128.store (local.get $v) (local.get $vv))
        (v128.store (local.get $p)
          (f32x4.sub
            (f32x4.mul (local.get $KEEP) (v128.load (local.get $p)))
            (f32x4.mul (local.get $RATE)
              (f32x4.div (local.get $mv)
                (f32x4.add (f32x4.mul (f32x4.sqrt (local.get $vv)) (local.get $RSQRT2)) (local.get $EPS))))))
        (local.set $p (i32.add (local.get $p) (i32.const 16)))
        (local.set $m (i32.add (local.get $m) (i32.const 16)))
        (local.set $v (i32.add (local.get $v) (i32.const 16)))
        (local.set $g (i32.add (local.get $g) (i32.const 32)))
        (local.set $n (i32.sub (local.get $n) (i32.const 4)))
        (br $next)))))
