"""Wan 2.1 VAE and DiT and the UMT5 encoder in plain torch, written for fast training.

Parameter names are those of diffusers' AutoencoderKLWan and WanTransformer3DModel
and of transformers' UMT5EncoderModel, so a state dict is a checkpoint; verify.py
checks that both compute the same.

The VAE runs on whole clips instead of frame chunks with caches (same result).
Its activations are [batch * time, channels, height, width], channels_last on a
GPU.  A causal 3x3x3 convolution is one 2-D convolution to three times the
channels whose parts are then shifted in time and added.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

# ---------------------------------------------------------------- fused pointwise functions


def _rms_silu_rows(rows, gamma):                 # rows [n, channels]
    wide = rows.float()
    inverse = torch.rsqrt((wide * wide).sum(-1, keepdim=True).clamp_min(1e-24))
    wide = wide * inverse * (gamma.float() * math.sqrt(rows.shape[-1]))
    return (wide * torch.sigmoid(wide)).to(rows.dtype)


def _causal_sum(parts, bias):                    # parts [batch, time, pixels, 3, channels]
    out = (parts[:, :, :, 2].float() + bias.float()
           + F.pad(parts[:, :-1, :, 1].float(), (0, 0, 0, 0, 1, 0))
           + F.pad(parts[:, :-2, :, 0].float(), (0, 0, 0, 0, 2, 0)))
    return out.to(parts.dtype)


def _causal_sum_residual(parts, bias, residual):
    out = (parts[:, :, :, 2].float() + bias.float() + residual.float()
           + F.pad(parts[:, :-1, :, 1].float(), (0, 0, 0, 0, 1, 0))
           + F.pad(parts[:, :-2, :, 0].float(), (0, 0, 0, 0, 2, 0)))
    return out.to(parts.dtype)


_fused = {"rms_silu": _rms_silu_rows, "sum": _causal_sum, "sum_residual": _causal_sum_residual}
_mark_dynamic = None


def compile_pointwise():
    """Compile the three functions above: one kernel per channel count, any clip size."""
    global _mark_dynamic
    import torch._dynamo as dynamo
    dynamo.config.automatic_dynamic_shapes = False
    for limit in ("recompile_limit", "cache_size_limit"):
        if hasattr(dynamo.config, limit):
            setattr(dynamo.config, limit, 64)
    for name in _fused:
        _fused[name] = torch.compile(_fused[name])
    _mark_dynamic = dynamo.maybe_mark_dynamic


def _dynamic(tensor, *dims):
    if _mark_dynamic is not None:
        for dim in dims:
            _mark_dynamic(tensor, dim)
    return tensor


def rms_silu(x, gamma):
    count, channels, height, width = x.shape
    rows = _dynamic(x.permute(0, 2, 3, 1).reshape(-1, channels), 0)
    out = _fused["rms_silu"](rows, gamma.reshape(-1))
    return out.view(count, height, width, channels).permute(0, 3, 1, 2)


def rms(x, gamma):
    wide = x.float()
    inverse = torch.rsqrt((wide * wide).sum(1, keepdim=True).clamp_min(1e-24))
    return wide * inverse * (gamma.view(1, -1, 1, 1).float() * math.sqrt(x.shape[1]))


# ---------------------------------------------------------------- VAE


class CausalConv(nn.Conv3d):
    def forward(self, x, time, residual=None):
        dtype = x.dtype
        if self.kernel_size == (1, 1, 1):
            return F.conv2d(x, self.weight[:, :, 0].to(dtype), self.bias.to(dtype))
        out_channels, in_channels = self.weight.shape[:2]
        weight = self.weight.permute(2, 0, 1, 3, 4).reshape(3 * out_channels, in_channels, 3, 3)
        weight = weight.to(dtype)
        if x.is_cuda:
            weight = weight.contiguous(memory_format=torch.channels_last)
        parts = F.conv2d(x, weight, padding=1)
        count, _, height, width = parts.shape
        batch, pixels = count // time, height * width
        parts = parts.permute(0, 2, 3, 1).reshape(batch, time, pixels, 3, out_channels)
        parts = _dynamic(parts, 0, 1, 2)
        if residual is None:
            out = _fused["sum"](parts, self.bias)
        else:
            residual = residual.permute(0, 2, 3, 1).reshape(batch, time, pixels, out_channels)
            out = _fused["sum_residual"](parts, self.bias, _dynamic(residual, 0, 1, 2))
        return out.view(count, height, width, out_channels).permute(0, 3, 1, 2)


def causal_conv3(inputs, outputs):
    return CausalConv(inputs, outputs, 3, padding=1)


class RMSNorm(nn.Module):
    def __init__(self, channels, images):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1) if images
                                  else torch.ones(channels, 1, 1, 1))


class Resample(nn.Module):
    """mode: upsample2d, upsample3d, downsample2d, downsample3d"""

    def __init__(self, channels, mode):
        super().__init__()
        self.mode = mode
        conv = (nn.Conv2d(channels, channels // 2, 3, padding=1) if "up" in mode
                else nn.Conv2d(channels, channels, 3, stride=2))
        self.resample = nn.Sequential(nn.Identity(), conv)
        if mode == "upsample3d":
            self.time_conv = nn.Conv3d(channels, channels * 2, (3, 1, 1))
        if mode == "downsample3d":
            self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def _double_time(self, x, time):
        """Frame 0 stays; each later frame becomes two.  Frame 0 is no context for them."""
        count, channels, height, width = x.shape
        batch, dtype = count // time, x.dtype
        clip = x.view(batch, time, channels, height, width)
        later = clip[:, 1:].reshape(batch * (time - 1), channels, height, width)
        weight = self.time_conv.weight[..., 0, 0].permute(2, 0, 1)      # [3, 2C, C]
        parts = F.conv2d(later, weight.reshape(6 * channels, channels, 1, 1).to(dtype))
        parts = parts.view(batch, time - 1, 3, 2 * channels, height, width)
        out = (parts[:, :, 2] + self.time_conv.bias.to(dtype).view(1, 1, -1, 1, 1)
               + F.pad(parts[:, :-1, 1], (0, 0, 0, 0, 0, 0, 1, 0)))
        if time > 2:
            out = out + F.pad(parts[:, :-2, 0], (0, 0, 0, 0, 0, 0, 2, 0))
        out = out.reshape(batch, 2 * (time - 1), channels, height, width)
        time = 2 * time - 1
        return torch.cat([clip[:, :1], out], 1).reshape(batch * time, channels, height, width), time

    def _halve_time(self, x, time):
        count, channels, height, width = x.shape
        batch, half = count // time, (time - 1) // 2
        clip = x.view(batch, time, channels, height, width)
        triples = torch.cat([clip[:, 0:2 * half - 1:2], clip[:, 1:2 * half:2],
                             clip[:, 2:2 * half + 1:2]], 2)
        triples = triples.reshape(batch * half, 3 * channels, height, width)
        weight = self.time_conv.weight[..., 0, 0].permute(0, 2, 1)      # [C, 3, C]
        weight = weight.reshape(channels, 3 * channels, 1, 1).to(x.dtype)
        out = F.conv2d(triples, weight, self.time_conv.bias.to(x.dtype))
        out = torch.cat([clip[:, :1], out.view(batch, half, channels, height, width)], 1)
        return out.reshape(batch * (half + 1), channels, height, width), half + 1

    def forward(self, x, time):
        conv, dtype = self.resample[1], x.dtype
        weight, bias = conv.weight.to(dtype), conv.bias.to(dtype)
        if self.mode == "upsample3d" and time > 1:
            x, time = self._double_time(x, time)
        if "up" in self.mode:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            if x.is_cuda:
                x = x.contiguous(memory_format=torch.channels_last)
            return F.conv2d(x, weight, bias, padding=1), time
        x = F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)
        if self.mode == "downsample3d" and time > 1:
            x, time = self._halve_time(x, time)
        return x, time


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1 = RMSNorm(inputs, images=False)
        self.conv1 = causal_conv3(inputs, outputs)
        self.norm2 = RMSNorm(outputs, images=False)
        self.conv2 = causal_conv3(outputs, outputs)
        self.conv_shortcut = (CausalConv(inputs, outputs, 1) if inputs != outputs
                              else nn.Identity())

    def forward(self, x, time):
        shortcut = x
        if isinstance(self.conv_shortcut, CausalConv):
            shortcut = self.conv_shortcut(x, time)
        hidden = self.conv1(rms_silu(x, self.norm1.gamma), time)
        return self.conv2(rms_silu(hidden, self.norm2.gamma), time, residual=shortcut)


class FrameAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = RMSNorm(channels, images=True)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        count, channels, height, width = x.shape
        dtype = x.dtype
        qkv = F.conv2d(rms(x, self.norm.gamma).to(dtype), self.to_qkv.weight.to(dtype),
                       self.to_qkv.bias.to(dtype))
        qkv = qkv.reshape(count, 3 * channels, height * width).transpose(1, 2).unsqueeze(1)
        q, k, v = [part.contiguous() for part in qkv.chunk(3, -1)]
        out = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        out = out.reshape(count, channels, height, width)
        return x + F.conv2d(out, self.proj.weight.to(dtype), self.proj.bias.to(dtype))


class MidBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels) for _ in range(2)])
        self.attentions = nn.ModuleList([FrameAttention(channels)])

    def forward(self, x, time):
        return self.resnets[1](self.attentions[0](self.resnets[0](x, time)), time)


class Encoder(nn.Module):
    def __init__(self, base, latent, multipliers, res_blocks, halve_time):
        super().__init__()
        widths = [base * m for m in [1] + multipliers]
        self.conv_in = causal_conv3(3, widths[0])
        layers = []
        for level, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:])):
            for _ in range(res_blocks):
                layers.append(ResidualBlock(inputs, outputs))
                inputs = outputs
            if level != len(multipliers) - 1:
                layers.append(Resample(outputs, "downsample3d" if halve_time[level]
                                       else "downsample2d"))
        self.down_blocks = nn.ModuleList(layers)
        self.mid_block = MidBlock(outputs)
        self.norm_out = RMSNorm(outputs, images=False)
        self.conv_out = causal_conv3(outputs, latent)

    def forward(self, x, time):
        x = self.conv_in(x, time)
        for layer in self.down_blocks:
            if isinstance(layer, Resample):
                x, time = layer(x, time)
            else:
                x = layer(x, time)
        x = self.mid_block(x, time)
        return self.conv_out(rms_silu(x, self.norm_out.gamma), time), time


class UpBlock(nn.Module):
    def __init__(self, inputs, outputs, res_blocks, mode):
        super().__init__()
        resnets = []
        for _ in range(res_blocks + 1):
            resnets.append(ResidualBlock(inputs, outputs))
            inputs = outputs
        self.resnets = nn.ModuleList(resnets)
        self.upsamplers = nn.ModuleList([Resample(outputs, mode)]) if mode else None

    def forward(self, x, time):
        for layer in self.resnets:
            x = layer(x, time)
        return self.upsamplers[0](x, time) if self.upsamplers is not None else (x, time)


class Decoder(nn.Module):
    def __init__(self, base, latent, multipliers, res_blocks, double_time):
        super().__init__()
        widths = [base * m for m in [multipliers[-1]] + multipliers[::-1]]
        self.conv_in = causal_conv3(latent, widths[0])
        self.mid_block = MidBlock(widths[0])
        blocks = []
        for level, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:])):
            mode = None
            if level != len(multipliers) - 1:
                mode = "upsample3d" if double_time[level] else "upsample2d"
            blocks.append(UpBlock(inputs // 2 if level else inputs, outputs, res_blocks, mode))
        self.up_blocks = nn.ModuleList(blocks)
        self.norm_out = RMSNorm(outputs, images=False)
        self.conv_out = causal_conv3(outputs, 3)

    def forward(self, x, time):
        x = self.mid_block(self.conv_in(x, time), time)
        for block in self.up_blocks:
            x, time = block(x, time)
        return self.conv_out(rms_silu(x, self.norm_out.gamma), time), time


def frames_from_clips(x):
    """[B,C,T,H,W] -> [B*T,C,H,W]"""
    batch, channels, time, height, width = x.shape
    frames = x.permute(0, 2, 1, 3, 4).reshape(batch * time, channels, height, width)
    return frames.contiguous(memory_format=torch.channels_last if x.is_cuda
                             else torch.contiguous_format)


def clips_from_frames(x, time):
    return x.reshape(x.shape[0] // time, time, *x.shape[1:]).permute(0, 2, 1, 3, 4)


VAE_CONFIG = dict(base_dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1,
                  temperal_downsample=[False, True, True])


class VAE(nn.Module):
    def __init__(self, base_dim, z_dim, dim_mult, num_res_blocks, temperal_downsample):
        super().__init__()
        self.encoder = Encoder(base_dim, 2 * z_dim, dim_mult, num_res_blocks, temperal_downsample)
        self.quant_conv = CausalConv(2 * z_dim, 2 * z_dim, 1)
        self.post_quant_conv = CausalConv(z_dim, z_dim, 1)
        self.decoder = Decoder(base_dim, z_dim, dim_mult, num_res_blocks,
                               temperal_downsample[::-1])

    def encode_frames(self, frames, time):
        """-> mean, log variance (both [B*T',C,h,w]) and T'"""
        hidden, time = self.encoder(frames, time)
        mean, logvar = self.quant_conv(hidden, time).chunk(2, 1)
        return mean, logvar, time

    def decode_frames(self, latent, time):
        return self.decoder(self.post_quant_conv(latent, time), time)

    def encode(self, clips):
        mean, logvar, time = self.encode_frames(frames_from_clips(clips), clips.shape[2])
        return clips_from_frames(mean, time), clips_from_frames(logvar, time)

    def decode(self, latents):
        frames, time = self.decode_frames(frames_from_clips(latents), latents.shape[2])
        return clips_from_frames(frames, time)


@torch.no_grad()
def init_vae(vae):
    """Start near an identity-like map: it trains several times faster than the default."""
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            module.conv2.weight.mul_(.3)
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            module.bias.zero_()
            pointwise = all(k == 1 for k in module.kernel_size)
            if pointwise and module.weight.shape[0] != 3 * module.weight.shape[1]:
                nn.init.orthogonal_(module.weight)
        if isinstance(module, Resample):
            weight = module.resample[1].weight
            outputs, inputs = weight.shape[:2]
            if "down" in module.mode:
                taps = torch.empty(outputs, inputs * 4)
                nn.init.orthogonal_(taps)
                weight.mul_(.1)
                weight[:, :, :2, :2] += taps.view(outputs, inputs, 2, 2)
            else:
                center = torch.empty(outputs, inputs)
                nn.init.orthogonal_(center)
                weight.mul_(.5)
                weight[:, :, 1, 1] += center
            if module.mode == "downsample3d":                # near the mean of two frames
                weight = module.time_conv.weight
                eye = torch.eye(weight.shape[0])
                weight.mul_(.2)
                weight[:, :, 1, 0, 0] += eye * .7
                weight[:, :, 2, 0, 0] += eye * .7
            if module.mode == "upsample3d":                  # near doubling each frame
                weight = module.time_conv.weight
                channels = weight.shape[1]
                weight.mul_(.3)
                weight[:channels, :, 2, 0, 0] += torch.eye(channels)
                weight[channels:, :, 2, 0, 0] += torch.eye(channels)


# ---------------------------------------------------------------- DiT


def linear(layer, x):
    bias = layer.bias.to(x.dtype) if layer.bias is not None else None
    return F.linear(x, layer.weight.to(x.dtype), bias)


def layer_norm(x, eps, weight=None, bias=None):
    return F.layer_norm(x.float(), (x.shape[-1],), weight, bias, eps)


class HeadNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight.to(x.dtype)


def rotate(x, cos, sin):
    """Rotary embedding of neighbouring pairs; x [batch, tokens, heads, head_dim]"""
    pairs = x.float().view(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    out = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return out.flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, width, heads, eps):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Identity()])
        self.norm_q = HeadNorm(width, eps)
        self.norm_k = HeadNorm(width, eps)

    def forward(self, x, context=None, rope=None, mask=None):
        batch, tokens, width = x.shape
        context = x if context is None else context
        split = (batch, -1, self.heads, width // self.heads)
        q = self.norm_q(linear(self.to_q, x)).view(split)
        k = self.norm_k(linear(self.to_k, context)).view(split)
        v = linear(self.to_v, context).view(split)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2),
                                             v.transpose(1, 2), attn_mask=mask)
        return linear(self.to_out[0], out.transpose(1, 2).reshape(batch, tokens, width))


class _Projection(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)


class FeedForward(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.net = nn.ModuleList([_Projection(width, hidden), nn.Identity(),
                                  nn.Linear(hidden, width)])

    def forward(self, x):
        hidden = F.gelu(linear(self.net[0].proj, x), approximate="tanh")
        return linear(self.net[2], hidden)


class Block(nn.Module):
    def __init__(self, width, hidden, heads, eps):
        super().__init__()
        self.eps = eps
        self.attn1 = Attention(width, heads, eps)
        self.attn2 = Attention(width, heads, eps)
        self.norm2 = nn.LayerNorm(width, eps)
        self.ffn = FeedForward(width, hidden)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width ** .5)

    def forward(self, x, context, time_shift, cos, sin, mask=None):
        dtype = x.dtype
        shift1, scale1, gate1, shift2, scale2, gate2 = \
            (self.scale_shift_table + time_shift.float()).chunk(6, 1)
        hidden = (layer_norm(x, self.eps) * (1 + scale1) + shift1).to(dtype)
        x = (x.float() + self.attn1(hidden, None, (cos, sin), mask) * gate1).to(dtype)
        hidden = layer_norm(x, self.eps, self.norm2.weight.float(), self.norm2.bias.float())
        x = x + self.attn2(hidden.to(dtype), context)
        hidden = (layer_norm(x, self.eps) * (1 + scale2) + shift2).to(dtype)
        return (x.float() + self.ffn(hidden).float() * gate2).to(dtype)


class _TwoLinear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)


class ConditionEmbedder(nn.Module):
    def __init__(self, width, freq_dim, text_dim):
        super().__init__()
        self.time_embedder = _TwoLinear(freq_dim, width)
        self.time_proj = nn.Linear(width, 6 * width)
        self.text_embedder = _TwoLinear(text_dim, width)


DIT_CONFIG = dict(num_attention_heads=4, attention_head_dim=64, num_layers=8, ffn_dim=1024,
                  text_dim=128, freq_dim=256, in_channels=16, eps=1e-6)


class DiT(nn.Module):
    def __init__(self, num_attention_heads, attention_head_dim, num_layers, ffn_dim, text_dim,
                 freq_dim, in_channels, eps):
        super().__init__()
        width = num_attention_heads * attention_head_dim
        self.head_dim, self.freq_dim, self.eps = attention_head_dim, freq_dim, eps
        self.patch_embedding = nn.Conv3d(in_channels, width, (1, 2, 2), (1, 2, 2))
        self.condition_embedder = ConditionEmbedder(width, freq_dim, text_dim)
        self.blocks = nn.ModuleList([Block(width, ffn_dim, num_attention_heads, eps)
                                     for _ in range(num_layers)])
        self.proj_out = nn.Linear(width, in_channels * 4)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width ** .5)
        self._rope_tables = {}

    def rope(self, time, height, width, device):
        key = (time, height, width, str(device))
        if key not in self._rope_tables:
            side = 2 * (self.head_dim // 6)

            def angles(count, dim):
                steps = torch.arange(0, dim, 2, dtype=torch.float64) / dim
                return torch.outer(torch.arange(count, dtype=torch.float64), 10000.0 ** -steps)

            grid = (time, height, width, -1)
            table = torch.cat([
                angles(time, self.head_dim - 2 * side).view(time, 1, 1, -1).expand(grid),
                angles(height, side).view(1, height, 1, -1).expand(grid),
                angles(width, side).view(1, 1, width, -1).expand(grid)], -1)
            table = table.reshape(1, time * height * width, 1, -1)
            self._rope_tables[key] = (table.cos().float().to(device),
                                      table.sin().float().to(device))
        return self._rope_tables[key]

    def forward(self, x, timestep, text, mask=None, dtype=None):
        """x [B,C,T,H,W], timestep [B] in 0..1000, text [B,tokens,text_dim] -> velocity"""
        dtype = dtype or x.dtype
        batch, channels, time, height, width = x.shape
        rows, cols = height // 2, width // 2
        cos, sin = self.rope(time, rows, cols, x.device)
        tokens = x.to(dtype).view(batch, channels, time, rows, 2, cols, 2)
        tokens = tokens.permute(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, channels * 4)
        weight = self.patch_embedding.weight.reshape(-1, channels * 4).to(dtype)
        tokens = F.linear(tokens, weight, self.patch_embedding.bias.to(dtype))

        embed, half = self.condition_embedder, self.freq_dim // 2
        steps = torch.arange(half, device=x.device).float() / half
        angle = timestep.float()[:, None] * torch.exp(-math.log(10000.0) * steps)[None]
        wave = torch.cat([angle.cos(), angle.sin()], -1)
        moment = linear(embed.time_embedder.linear_1, wave)
        moment = linear(embed.time_embedder.linear_2, F.silu(moment))
        time_shift = linear(embed.time_proj, F.silu(moment)).view(batch, 6, -1)
        context = linear(embed.text_embedder.linear_1, text.to(dtype))
        context = linear(embed.text_embedder.linear_2, F.gelu(context, approximate="tanh"))

        for block in self.blocks:
            tokens = block(tokens, context, time_shift, cos, sin, mask)
        shift, scale = (self.scale_shift_table + moment[:, None]).chunk(2, 1)
        tokens = (layer_norm(tokens, self.eps) * (1 + scale) + shift).to(dtype)
        tokens = linear(self.proj_out, tokens).view(batch, time, rows, cols, 2, 2, channels)
        return tokens.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, channels, time, height, width)


@torch.no_grad()
def init_dit(dit):
    for name, parameter in dit.named_parameters():
        if name.endswith("to_out.0.weight") or name.endswith("net.2.weight"):
            parameter.mul_(.5)
    dit.proj_out.weight.mul_(.1)


# ---------------------------------------------------------------- UMT5 encoder


class T5Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class T5Attention(nn.Module):
    def __init__(self, width, heads, head_dim):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, heads * head_dim, bias=False)
        self.k = nn.Linear(width, heads * head_dim, bias=False)
        self.v = nn.Linear(width, heads * head_dim, bias=False)
        self.o = nn.Linear(heads * head_dim, width, bias=False)
        self.relative_attention_bias = nn.Embedding(32, heads)


class T5SelfAttentionLayer(nn.Module):
    def __init__(self, width, heads, head_dim):
        super().__init__()
        self.SelfAttention = T5Attention(width, heads, head_dim)
        self.layer_norm = T5Norm(width)

    def forward(self, x, buckets, padding):
        attention, hidden = self.SelfAttention, self.layer_norm(x)
        batch, tokens, _ = hidden.shape
        q, k, v = [layer(hidden).view(batch, tokens, attention.heads, -1).transpose(1, 2)
                   for layer in (attention.q, attention.k, attention.v)]
        bias = attention.relative_attention_bias.weight[buckets].permute(2, 0, 1)[None]
        weights = torch.softmax(q @ k.transpose(-1, -2) + bias + padding, -1)
        return x + attention.o((weights @ v).transpose(1, 2).reshape(batch, tokens, -1))


class T5Gated(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.wi_0 = nn.Linear(width, hidden, bias=False)
        self.wi_1 = nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)


class T5FeedForwardLayer(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.DenseReluDense = T5Gated(width, hidden)
        self.layer_norm = T5Norm(width)

    def forward(self, x):
        dense, hidden = self.DenseReluDense, self.layer_norm(x)
        return x + dense.wo(F.gelu(dense.wi_0(hidden), approximate="tanh") * dense.wi_1(hidden))


class T5Block(nn.Module):
    def __init__(self, width, heads, head_dim, hidden):
        super().__init__()
        self.layer = nn.ModuleList([T5SelfAttentionLayer(width, heads, head_dim),
                                    T5FeedForwardLayer(width, hidden)])


class T5Stack(nn.Module):
    def __init__(self, width, heads, head_dim, hidden, layers):
        super().__init__()
        self.block = nn.ModuleList([T5Block(width, heads, head_dim, hidden)
                                    for _ in range(layers)])
        self.final_layer_norm = T5Norm(width)


def relative_buckets(count):
    position = torch.arange(count)
    relative = position[None] - position[:, None]
    bucket, distance = (relative > 0).long() * 16, relative.abs()
    far = 8 + (torch.log(distance.clamp_min(1).float() / 8) / math.log(128 / 8) * 8).long()
    return bucket + torch.where(distance < 8, distance, far.clamp_max(15))


TEXT_CONFIG = dict(vocab_size=512, d_model=128, num_heads=4, d_kv=32, d_ff=256, num_layers=2)


class UMT5(nn.Module):
    def __init__(self, vocab_size, d_model, num_heads, d_kv, d_ff, num_layers):
        super().__init__()
        self.shared = nn.Embedding(vocab_size, d_model)
        self.encoder = T5Stack(d_model, num_heads, d_kv, d_ff, num_layers)
        for name, parameter in self.named_parameters():
            if "shared" in name:
                nn.init.normal_(parameter, 0, 1.0)
            elif ".q." in name:
                nn.init.normal_(parameter, 0, (d_model * d_kv) ** -.5)
            elif "relative" in name:
                nn.init.normal_(parameter, 0, .1)
            elif ".o." in name or ".wo." in name:
                nn.init.normal_(parameter, 0, .5 * parameter.shape[1] ** -.5)
            elif "layer_norm" not in name:
                nn.init.normal_(parameter, 0, d_model ** -.5)
        self.register_buffer("buckets", relative_buckets(64), persistent=False)

    def forward(self, ids):
        """ids [B,tokens], 0 = padding -> fp32 embeddings, zero at the padding (as Wan does)"""
        present, tokens = ids != 0, ids.shape[1]
        x = self.shared.weight[ids]
        padding = torch.where(present, 0.0, -1e9)[:, None, None, :]
        for block in self.encoder.block:
            x = block.layer[0](x, self.buckets[:tokens, :tokens], padding)
            x = block.layer[1](x)
        return self.encoder.final_layer_norm(x) * present[..., None]


def parameter_count(module):
    return sum(p.numel() for p in module.parameters())
