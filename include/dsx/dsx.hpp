// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// All of dsx that a training program needs.
///
///     #include <dsx/dsx.hpp>
#pragma once

#include <dsx/comm/launch.hpp>
#include <dsx/models/gpt2.hpp>
#include <dsx/moe/dropless.hpp>
#include <dsx/moe/top_k.hpp>
#include <dsx/nn/experts.hpp>
#include <dsx/offload/rest.hpp>
#include <dsx/ops/map.hpp>
#include <dsx/optim/adamw.hpp>
#include <dsx/optim/muon.hpp>
#include <dsx/optim/sgd.hpp>
#include <dsx/pipeline/gpipe.hpp>
#include <dsx/pipeline/interleaved.hpp>
#include <dsx/pipeline/one_forward_one_backward.hpp>
#include <dsx/precision/bf16.hpp>
#include <dsx/quant/quantize.hpp>
#include <dsx/sharding/hpz.hpp>
#include <dsx/sharding/mics.hpp>
#include <dsx/sharding/zero.hpp>
#include <dsx/train/trainer.hpp>
#include <dsx/version.hpp>
