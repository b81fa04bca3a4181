# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes dtypes.safetensors beside itself with Hugging Face's own library: one tensor of each dtype that dsx holds, an empty
tensor, a scalar, names that JSON has to escape. Needs safetensors 0.8 (TensorSpec). Byte k of the i-th tensor is (16 i + k) mod 251."""
import ctypes
import pathlib

from safetensors import TensorSpec, serialize

SHAPES = [("plain.bool", "bool", [3], 1), ("plain.u8", "uint8", [3], 1), ("plain.i8", "int8", [3], 1), ("plain.i16", "int16", [3], 2),
          ("plain.u16", "uint16", [3], 2), ("plain.f16", "float16", [3], 2), ("plain.bf16", "bfloat16", [3], 2), ("plain.i32", "int32", [3], 4),
          ("plain.u32", "uint32", [3], 4), ("plain.f32", "float32", [3], 4), ("plain.f64", "float64", [3], 8), ("plain.i64", "int64", [3], 8),
          ("plain.u64", "uint64", [3], 8), ("empty", "float32", [0, 3], 4), ("scalar", "float32", [], 4),
          ('escaped "\\\t\x01/é🙂\x7f', "float32", [1, 1], 4)]

buffers, tensors = [], {}
for i, (name, dtype, shape, size) in enumerate(SHAPES):
    count = size
    for dim in shape:
        count *= dim
    buffer = ctypes.create_string_buffer(bytes((16 * i + k) % 251 for k in range(count)), max(count, 1))
    buffers.append(buffer)
    tensors[name] = TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(buffer), data_len=count)
(pathlib.Path(__file__).parent / "dtypes.safetensors").write_bytes(serialize(tensors, {"format": "pt"}))
