"""Cross-entropy of the head against the teacher's whole distribution.

Logits of all tokens would not fit in memory: gradients are made chunk by chunk while the
loss is computed, and kept instead.
"""

import torch

CHUNK = 6144  # tokens


def chunk_gradient(student_logits, teacher_logits, log_sum, best_row, weight, sharpness: float):
    """Gradient of the logits; sums of loss and of matches. The last row is every id that
    the student does not know: it gets what the teacher leaves for them."""
    known = torch.exp(teacher_logits.float() - log_sum[:, None])
    other = (1.0 - known.sum(-1, keepdim=True)).clamp(min=0.0)
    target = (1.0 - sharpness) * torch.cat((known, other), -1)
    rows = torch.arange(target.shape[-1], device=target.device)
    target = target + sharpness * (rows[None] == best_row[:, None])
    logits = student_logits.float()
    log_probs = torch.log_softmax(logits, -1)
    loss = -(target * log_probs).sum(-1)
    gradient = (log_probs.exp() * target.sum(-1, keepdim=True) - target) * weight[:, None]
    last = target.shape[-1] - 1
    guess = logits[:, :last].argmax(-1)
    matches = (guess == best_row) * weight
    return gradient.to(student_logits.dtype), (loss * weight).sum(), matches.sum()


class HeadLoss(torch.autograd.Function):
    """Mean loss over the weights, and the share of tokens where the guesses agree."""

    @staticmethod
    def forward(ctx, states, embedding, teacher_states, teacher_head, log_sum, best_row, weight,
                sharpness, kernel):
        head = embedding.to(states.dtype)
        total = weight.sum().clamp(min=1e-6)
        state_gradient = torch.empty_like(states)
        head_gradient = torch.zeros_like(embedding)
        loss = matches = torch.zeros((), device=states.device)
        for begin in range(0, len(states), CHUNK):
            part = slice(begin, begin + CHUNK)
            x = states[part]
            gradient, chunk_loss, chunk_matches = kernel(
                x @ head.T, teacher_states[part] @ teacher_head.T, log_sum[part], best_row[part],
                weight[part] / total, sharpness)
            state_gradient[part] = gradient @ head
            head_gradient += gradient.T @ x
            loss, matches = loss + chunk_loss, matches + chunk_matches
        ctx.save_for_backward(state_gradient, head_gradient)
        return loss, matches.detach()

    @staticmethod
    def backward(ctx, loss_gradient, _):
        state_gradient, head_gradient = ctx.saved_tensors
        return (state_gradient * loss_gradient, head_gradient * loss_gradient) + (None,) * 7
