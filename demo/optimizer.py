"""One flat optimiser: Muon for matrices, Adam for the rest, with clipping and an EMA.

All parameters live in one buffer and all gradients in another, so that a step is
a handful of kernels, can be captured in a CUDA graph, and several GPUs exchange
gradients with a single all-reduce of `grads`.
"""
import math

import torch

# tuned fifth-order Newton-Schulz coefficients, one triple per iteration
_NEWTON_SCHULZ = ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377),
                  (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046),
                  (2.8366, -3.0525, 1.2012))


def orthogonalize(matrices, dtype):
    """Nearest (semi-)orthogonal matrices, batched [n, rows, cols], approximately."""
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.transpose(-1, -2)
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).to(dtype)
    for a, b, c in _NEWTON_SCHULZ:
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.transpose(-1, -2) if tall else x).float()


class FlatOptimizer:
    def __init__(self, named_parameters, adam_names, adam_betas, adam_ratio=1.0, momentum=.95,
                 weight_decay=0.0, clip=1.0, ema_decay=.999):
        """adam_names: parts of names of matrices that Adam gets; it runs at adam_ratio x lr."""
        by_shape, others = {}, []
        named_parameters = list(named_parameters)
        for name, parameter in named_parameters:
            rows = parameter.shape[0] if parameter.ndim else 1
            cols = parameter.numel() // rows
            is_matrix = parameter.ndim >= 2 and min(rows, cols) >= 8
            if is_matrix and not any(part in name for part in adam_names):
                by_shape.setdefault((rows, cols), []).append((name, parameter))
            else:
                others.append((name, parameter))
        total = sum(p.numel() for _, p in named_parameters)
        device = named_parameters[0][1].device
        self.values = torch.empty(total, device=device)
        self.grads = torch.zeros(total, device=device)
        self.first = torch.zeros(total, device=device)
        self.layout, self.groups, self.size = [], [], 0
        for shape in sorted(by_shape):
            start = self.size
            for name, parameter in by_shape[shape]:
                self._place(name, parameter)
            self.groups.append((start, self.size, len(by_shape[shape]), shape))
        self.adam_start = self.size
        for name, parameter in others:
            self._place(name, parameter)
        self.second = torch.zeros(total - self.adam_start, device=device)
        self.count = torch.zeros((), device=device)
        self.lr = torch.zeros((), device=device)
        self.grad_norm = torch.zeros((), device=device)
        self.ema = self.values.clone()
        self.adam_betas, self.adam_ratio, self.momentum = adam_betas, adam_ratio, momentum
        self.weight_decay, self.clip, self.ema_decay = weight_decay, clip, ema_decay
        self.matrix_dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def _place(self, name, parameter):
        start, end = self.size, self.size + parameter.numel()
        self.values[start:end] = parameter.data.reshape(-1)
        parameter.data = self.values[start:end].view(parameter.shape)
        parameter.grad = self.grads[start:end].view(parameter.shape)
        self.layout.append((name, start, end, parameter.shape))
        self.size = end

    @torch.no_grad()
    def step(self):
        self.count += 1
        self.grad_norm.copy_(self.grads.norm())
        scale = (self.clip / (self.grad_norm + 1e-6)).clamp(max=1.0)
        scale = torch.where(torch.isfinite(self.grad_norm), scale, torch.zeros_like(scale))
        self.grads.copy_(torch.nan_to_num(self.grads, 0.0, 0.0, 0.0) * scale)

        split = self.adam_start
        if split > 0:
            matrix_grads = self.grads[:split]
            self.first[:split].lerp_(matrix_grads, 1 - self.momentum)
            update = torch.lerp(matrix_grads, self.first[:split], self.momentum)   # Nesterov
            if self.weight_decay:
                self.values[:split].mul_(1 - self.lr * self.weight_decay)
            for start, end, count, (rows, cols) in self.groups:
                direction = orthogonalize(update[start:end].view(count, rows, cols),
                                          self.matrix_dtype)
                rate = self.lr * (.2 * math.sqrt(max(rows, cols)))     # RMS like Adam's
                self.values[start:end] -= rate * direction.reshape(-1)

        grads, first = self.grads[split:], self.first[split:]
        beta1, beta2 = self.adam_betas
        first.lerp_(grads, 1 - beta1)
        self.second.lerp_(grads * grads, 1 - beta2)
        denominator = (self.second / (1 - beta2 ** self.count)).sqrt() + 1e-8
        self.values[split:] -= (self.lr * self.adam_ratio) * (first / (1 - beta1 ** self.count)
                                                              ) / denominator

        decay = torch.minimum(torch.full_like(self.count, self.ema_decay),
                              (1 + self.count) / (10 + self.count))
        self.ema.lerp_(self.values, 1 - decay)

    def use_ema(self):
        self.values.copy_(self.ema)

    def ema_state(self):
        return {name: self.ema[start:end].view(shape).clone()
                for name, start, end, shape in self.layout}
