;; float32 to bfloat16, round half to even, eight values a turn.
(module
  (memory (export "memory") 1)
  ;; Converts $count values (a multiple of 8). Returns 0, or 1 where a value is no number or rounds to infinity: those bits
  ;; then mean nothing and the caller converts the values one by one.
  (func (export "convert") (param $from i32) (param $to i32) (param $count i32) (result i32)
    (local $end i32) (local $a v128) (local $b v128) (local $odd v128)
    (local.set $end (i32.add (local.get $from) (i32.shl (local.get $count) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
        (local.set $a (v128.load (local.get $from)))
        (local.set $b (v128.load offset=16 (local.get $from)))
        ;; 0x7f7f8000 is the least magnitude that rounds to infinity; infinities and NaNs lie above.
        (local.set $odd (v128.or (local.get $odd) (v128.or
          (i32x4.ge_u
            (v128.and (local.get $a) (v128.const i32x4 0x7fffffff 0x7fffffff 0x7fffffff 0x7fffffff))
            (v128.const i32x4 0x7f7f8000 0x7f7f8000 0x7f7f8000 0x7f7f8000))
          (i32x4.ge_u
            (v128.and (local.get $b) (v128.const i32x4 0x7fffffff 0x7fffffff 0x7fffffff 0x7fffffff))
            (v128.const i32x4 0x7f7f8000 0x7f7f8000 0x7f7f8000 0x7f7f8000)))))
        (v128.store (local.get $to) (i16x8.narrow_i32x4_u
          (i32x4.shr_u (i32x4.add
            (i32x4.add (local.get $a) (v128.const i32x4 0x7fff 0x7fff 0x7fff 0x7fff))
            (v128.and (i32x4.shr_u (local.get $a) (i32.const 16)) (v128.const i32x4 1 1 1 1))) (i32.const 16))
          (i32x4.shr_u (i32x4.add
            (i32x4.add (local.get $b) (v128.const i32x4 0x7fff 0x7fff 0x7fff 0x7fff))
            (v128.and (i32x4.shr_u (local.get $b) (i32.const 16)) (v128.const i32x4 1 1 1 1))) (i32.const 16))))
        (local.set $from (i32.add (local.get $from) (i32.const 32)))
        (local.set $to (i32.add (local.get $to) (i32.const 16)))
        (br $next)))
    (v128.any_true (local.get $odd))))
