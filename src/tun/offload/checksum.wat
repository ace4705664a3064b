;; The Internet checksum (RFC 1071) over packet buffers, 16 bytes at a time. scripts/build-wasm.mjs assembles it into
;; checksum-module.gen.ts; checksum.ts has the same two functions in TypeScript and says what they promise.
;;
;; The sum is independent of byte order (RFC 1071 §2 (B)): it is taken over little-endian words, which is what
;; WebAssembly loads, and its two bytes are swapped at the end. Loads and stores may be unaligned. 16 bytes add at most
;; 2 x 0xffff to a 32-bit lane, so that none overflows below 512 KiB.
(module
  (import "packets" "memory" (memory 1))

  ;; `initial`, of up to 32 bits, plus the ones' complement sum of `length` bytes from `at`, as a 16-bit big-endian value.
  (func $sum (export "sum") (param $at i32) (param $length i32) (param $initial i32) (result i32)
    (local $end i32)
    (local $even v128)
    (local $odd v128)

    ;; Blocks of 64 bytes, with two accumulators that do not wait for each other.
    (local.set $end (i32.add (local.get $at) (i32.and (local.get $length) (i32.const -64))))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $at) (local.get $end)))
        (local.set $even (i32x4.add (local.get $even) (i32x4.extadd_pairwise_i16x8_u (v128.load offset=0 (local.get $at)))))
        (local.set $odd (i32x4.add (local.get $odd) (i32x4.extadd_pairwise_i16x8_u (v128.load offset=16 (local.get $at)))))
        (local.set $even (i32x4.add (local.get $even) (i32x4.extadd_pairwise_i16x8_u (v128.load offset=32 (local.get $at)))))
        (local.set $odd (i32x4.add (local.get $odd) (i32x4.extadd_pairwise_i16x8_u (v128.load offset=48 (local.get $at)))))
        (local.set $at (i32.add (local.get $at) (i32.const 64)))
        (br $next)))

    ;; What is left, by the bits of the length.
    (if (i32.and (local.get $length) (i32.const 32))
      (then
        (local.set $even (i32x4.add (local.get $even) (i32x4.extadd_pairwise_i16x8_u (v128.load offset=0 (local.get $at)))))
        (local.set $odd (i32x4.add (local.get $odd) (i32x4.extadd_pairwise_i16x8_u (v128.load offset=16 (local.get $at)))))
        (local.set $at (i32.add (local.get $at) (i32.const 32)))))
    (if (i32.and (local.get $length) (i32.const 16))
      (then
        (local.set $even (i32x4.add (local.get $even) (i32x4.extadd_pairwise_i16x8_u (v128.load (local.get $at)))))
        (local.set $at (i32.add (local.get $at) (i32.const 16)))))
    (if (i32.and (local.get $length) (i32.const 8))
      (then
        (local.set $even (i32x4.add (local.get $even) (i32x4.extadd_pairwise_i16x8_u (v128.load64_zero (local.get $at)))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))))
    (if (i32.and (local.get $length) (i32.const 4))
      (then
        (local.set $even (i32x4.add (local.get $even) (i32x4.extadd_pairwise_i16x8_u (v128.load32_zero (local.get $at)))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))))
    (if (i32.and (local.get $length) (i32.const 2))
      (then
        (local.set $even (i32x4.add (local.get $even)
          (i32x4.extadd_pairwise_i16x8_u (v128.load16_lane 0 (local.get $at) (v128.const i32x4 0 0 0 0)))))
        (local.set $at (i32.add (local.get $at) (i32.const 2)))))
    ;; An odd last byte counts as the first of a word whose second is zero.
    (if (i32.and (local.get $length) (i32.const 1))
      (then
        (local.set $even (i32x4.add (local.get $even)
          (i32x4.extadd_pairwise_i16x8_u (v128.load8_lane 0 (local.get $at) (v128.const i32x4 0 0 0 0)))))))

    (call $finish (i32x4.add (local.get $even) (local.get $odd)) (local.get $initial)))

  ;; The same, and copies the bytes on the way: the blocks as they are summed, the rest in front of its sum.
  (func (export "copySum")
    (param $from i32) (param $to i32) (param $length i32) (param $initial i32) (result i32)
    (local $end i32)
    (local $rest i32)
    (local $v v128)
    (local $even v128)
    (local $odd v128)
    (local.set $end (i32.add (local.get $from) (i32.and (local.get $length) (i32.const -64))))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $from) (local.get $end)))
        (local.set $v (v128.load offset=0 (local.get $from)))
        (v128.store offset=0 (local.get $to) (local.get $v))
        (local.set $even (i32x4.add (local.get $even) (i32x4.extadd_pairwise_i16x8_u (local.get $v))))
        (local.set $v (v128.load offset=16 (local.get $from)))
        (v128.store offset=16 (local.get $to) (local.get $v))
        (local.set $odd (i32x4.add (local.get $odd) (i32x4.extadd_pairwise_i16x8_u (local.get $v))))
        (local.set $v (v128.load offset=32 (local.get $from)))
        (v128.store offset=32 (local.get $to) (local.get $v))
        (local.set $even (i32x4.add (local.get $even) (i32x4.extadd_pairwise_i16x8_u (local.get $v))))
        (local.set $v (v128.load offset=48 (local.get $from)))
        (v128.store offset=48 (local.get $to) (local.get $v))
        (local.set $odd (i32x4.add (local.get $odd) (i32x4.extadd_pairwise_i16x8_u (local.get $v))))
        (local.set $from (i32.add (local.get $from) (i32.const 64)))
        (local.set $to (i32.add (local.get $to) (i32.const 64)))
        (br $next)))

    (local.set $rest (i32.and (local.get $length) (i32.const 63)))
    (if (i32.and (local.get $rest) (i32.const 32))
      (then
        (v128.store offset=0 (local.get $to) (v128.load offset=0 (local.get $from)))
        (v128.store offset=16 (local.get $to) (v128.load offset=16 (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 32)))
        (local.set $to (i32.add (local.get $to) (i32.const 32)))))
    (if (i32.and (local.get $rest) (i32.const 16))
      (then
        (v128.store (local.get $to) (v128.load (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (local.set $to (i32.add (local.get $to) (i32.const 16)))))
    (if (i32.and (local.get $rest) (i32.const 8))
      (then
        (i64.store (local.get $to) (i64.load (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 8)))
        (local.set $to (i32.add (local.get $to) (i32.const 8)))))
    (if (i32.and (local.get $rest) (i32.const 4))
      (then
        (i32.store (local.get $to) (i32.load (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 4)))
        (local.set $to (i32.add (local.get $to) (i32.const 4)))))
    (if (i32.and (local.get $rest) (i32.const 2))
      (then
        (i32.store16 (local.get $to) (i32.load16_u (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 2)))
        (local.set $to (i32.add (local.get $to) (i32.const 2)))))
    (if (i32.and (local.get $rest) (i32.const 1))
      (then (i32.store8 (local.get $to) (i32.load8_u (local.get $from)))))

    (call $sum
      (local.get $end)
      (local.get $rest)
      (call $finish (i32x4.add (local.get $even) (local.get $odd)) (local.get $initial))))

  ;; Four lanes to one sum, folded, in network byte order, on top of `initial`.
  (func $finish (param $lanes v128) (param $initial i32) (result i32)
    (local $sum i64)
    (local.set $lanes (i64x2.add
      (i64x2.extend_low_i32x4_u (local.get $lanes))
      (i64x2.extend_high_i32x4_u (local.get $lanes))))
    (local.set $sum (i64.add (i64x2.extract_lane 0 (local.get $lanes)) (i64x2.extract_lane 1 (local.get $lanes))))
    ;; 34 bits to 19, to 17, to 16, which is what can be swapped.
    (local.set $sum (call $fold (call $fold (call $fold (local.get $sum)))))
    (local.set $sum (i64.or
      (i64.shr_u (local.get $sum) (i64.const 8))
      (i64.shl (i64.and (local.get $sum) (i64.const 0xff)) (i64.const 8))))
    (i32.wrap_i64 (call $fold (call $fold (i64.add (local.get $sum) (i64.extend_i32_u (local.get $initial)))))))

  (func $fold (param $sum i64) (result i64)
    (i64.add (i64.and (local.get $sum) (i64.const 0xffff)) (i64.shr_u (local.get $sum) (i64.const 16)))))
