"""Which printed number is taken for the metric, and what its pattern reads from real output."""

import ast

import pytest

from agent.scaffold.metric import find_metric
from agent.trial.metric_line import is_not_finite, metric_token, read_number

RESULTS = "def evaluate():\n    return {'loss': a, 'eval_accuracy': b}\n"


@pytest.mark.parametrize(
    ("source", "name", "goal", "printed", "value"),
    [
        ('print(f"val_bpb:          {v:.6f}")', "val_bpb", "minimize", "val_bpb:          0.997900", "0.997900"),
        ('print("accuracy:", score(x))', "accuracy", "maximize", "accuracy: 0.93", "0.93"),
        ('print("Test accuracy = %.2f%%" % a)', "test_accuracy", "maximize", "Test accuracy = 93.10%", "93.10"),
        ('print("rmse {:.3e}".format(e))', "rmse", "minimize", "rmse 1.250e-03", "1.250e-03"),
        ('print("epoch", k, "val_acc", a)', "val_acc", "maximize", "epoch 3 val_acc 0.5", "0.5"),
        ('print(f"train loss {a:.4f}, val loss {b:.4f}")', "val_loss", "minimize",
         "train loss 1.9000, val loss 2.0500", "2.0500"),
        ('print("validation loss: " + str(v))', "validation_loss", "minimize", "validation loss: 2.5", "2.5"),
        ('logger.info(f"final F1 {f1:.2f}")', "f1", "maximize", "12:00 INFO final F1 0.80", "0.80"),
        ('log.info("round %d: val f1 %.4f", k, f)', "val_f1", "maximize", "12:00 round 7: val f1 0.8125", "0.8125"),
        ('print(f"loss {a}\\nval_loss {b}")', "val_loss", "minimize", "loss 2\nval_loss 3", "3"),
        ('print(f"(auc) {a}")', "auc", "maximize", "(auc) nan", "nan"),
        ('print("loss", a)\nprint("loss", b)', "loss", "minimize", "loss 7", "7"),
        ('print(f"Final accuracy: {a}.")', "accuracy", "maximize", "Final accuracy: 0.93.", "0.93"),
        ('print(f"{k} acc={a:.2f} train_acc={b:.2f}")', "acc", "maximize", "7 acc=0.50 train_acc=0.75", "0.50"),
        ('print(f"negative log-likelihood: {x}")', "negative_log_likelihood", "minimize",
         "negative log-likelihood: 20.5", "20.5"),
        ('print("accuracy:", a)\nprint("loss:", b)', "accuracy", "maximize", "accuracy: 0.5\nloss: 3", "0.5"),
        ('print({"step": k, "val_loss": v})', "val_loss", "minimize", "{'step': 3, 'val_loss': 1.25}", "1.25"),
        ('print(json.dumps({"train_loss": a, "val_loss": v}))', "val_loss", "minimize",
         '{"train_loss": 1.0, "val_loss": NaN}', "NaN"),
        (f'{RESULTS}print(f"loss {{x:.3f}}")\nprint(evaluate())', "eval_accuracy", "maximize",
         "loss 1.5\n{'loss': 1.0, 'eval_accuracy': 0.5}", "0.5"),
        (f'{RESULTS}print(f"train loss {{x}}")\nprint(f"step {{k}}: {{evaluate()}}")', "eval_accuracy", "maximize",
         "train loss 1\nstep 3: {'loss': 1.0, 'eval_accuracy': 0.5}", "0.5"),
        ('m = {}\nm["val_loss"] = x\nprint("loss", y)\nlogger.info(m)', "val_loss", "minimize",
         "loss 3\nINFO {'val_loss': 2.5}", "2.5"),
    ],
)  # fmt: skip
def test_metric_and_pattern_of_script(source: str, name: str, goal: str, printed: str, value: str) -> None:
    metric = find_metric(ast.parse(source))
    assert metric is not None
    assert (metric.name, metric.goal) == (name, goal)
    token = metric_token(printed, metric.pattern)
    assert token is not None
    assert read_number(token) == float(value) if value.lower() != "nan" else is_not_finite(token)


@pytest.mark.parametrize("source", ["x = 1", 'print("hello")', 'print(f"step {k}")', 'print(f"total_seconds: {t}")',
                                    'open("loss")', 'print("%d %d" % (a,))', 'print("{".format(a))',
                                    'print("gradient accumulation:", n)', "x = np.log(val_loss)",
                                    'print(k)\nwandb.log({"loss": x})', 'print(f"{\'val_acc\':>8}")'])  # fmt: skip
def test_script_without_metric(source: str) -> None:
    assert find_metric(ast.parse(source)) is None


@pytest.mark.parametrize("printed", ["loss 1.25e-3x", "loss 1.2.3", "loss tensor(0.5)", "loss 1,003.34"])
def test_pattern_never_reads_part_of_token(printed: str) -> None:
    metric = find_metric(ast.parse('print("loss", x)'))
    assert metric is not None
    token = metric_token(printed, metric.pattern)
    assert token is not None
    assert read_number(token) is None
