"""The report's tables and numbers as LaTeX commands, made of report/results, so that none is typed by hand."""
import os

import pandas

from common.data import SCENARIOS
from common.runtime import write_text
from common.weights import load_weights
from report.table import RESULTS, ROOT, TABLES, table_rows

TITLES = {"usps": "USPS", "mnistm": "MNIST-M", "svhn": "SVHN"}
PAIRS = [f"{TITLES[source]} → {TITLES[target]}" for target, source in SCENARIOS.items()]
PEERS = {"source": "source only", "dann": "DANN", "improved": "improved method", "target": "target only"}


def read(name):
    return pandas.read_csv(os.path.join(RESULTS, name), dtype=str, keep_default_na=False)


def escape(text):
    for plain, latex in (("_", r"\_"), ("%", r"\%"), ("→", r"$\to$"), ("±", r"$\pm$"), ("λ", r"$\lambda$"), ("−", "$-$")):
        text = text.replace(plain, latex)
    return text


def tabular(header, rows):
    """A table of strings, its first column to the left, the others to the right."""
    lines = [" & ".join(map(escape, row)) + r" \\" for row in (header, *rows)]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"])


def minutes(seconds):
    return f"{int(seconds) / 60:.0f}" if seconds else ""


def rounded(value, digits):
    return f"{float(value):.{digits}f}" if value else ""


def vae_rows():
    for row in read("p1.csv").itertuples():
        yield (row.row.replace("_", " "), row.kl_weight and f"{float(row.kl_weight):.0e}".replace("e-0", "e-"), rounded(row.test_mse, 4), row.kl, row.dimensions_in_use,
               rounded(row.fd_efflite, 0), minutes(row.train_seconds))


def gan_rows():
    for row in read("p2.csv").itertuples():
        yield (row.row.replace("_", " "), row.steps, rounded(row.accuracy_real, 2), rounded(row.accuracy_fake, 2), rounded(row.fd_efflite, 0), minutes(row.train_seconds))


def peer_rows(names):
    """The best published accuracy of each kind, with the problem's own pairs in order."""
    peers = read("peers.csv")
    for name in names:
        columns = [pandas.to_numeric(peers[f"{name}_{pair}"]) for pair in ("um", "ms", "su")]
        yield f"peers' {PEERS[name]}, best", *(f"{column.max():g}" for column in columns)


def ablation_rows():
    titles = {mode: title for mode, (title, _) in TABLES["p4_ablation"].items()}
    for row in read("p4_ablation.csv").itertuples():
        yield titles[row.mode], rounded(row.accuracy, 1), row.target_information


def write_latex(path):
    """Write \\newcommand for each table and number of report.tex."""
    p3, p4 = ({cells[0]: cells for cells in table_rows(table)} for table in ("p3", "p4"))
    source, dann, target = p3.values()
    augmented, *methods = p4.values()
    scores = {"vae": read("p1.csv").iloc[-1], "gan": read("p2.csv").iloc[-1]}
    logs = {"vae": read("p1_vae_log.csv"), "gan": read("p2_gan_log.csv")}
    pairs = ["", *PAIRS]
    commands = {
        "vaeTable": tabular(["", r"λ", "test MSE", "KL, nats", "dimensions", "distance", "minutes"], vae_rows()),
        "ganTable": tabular(["", "steps", "acc. real", "acc. fake", "distance", "minutes"], gan_rows()),
        "dannTable": tabular(pairs, [source, dann, target, *peer_rows(["source", "dann", "target"])]),
        "ablationTable": tabular(["", "accuracy, %", "target information, nats"], ablation_rows()),
        "udaTable": tabular(pairs, [source, augmented, dann, *methods, target, *peer_rows(["improved"])]),
        "vaeMse": rounded(scores["vae"].test_mse, 4), "vaeKl": scores["vae"].kl, "vaeDimensions": scores["vae"].dimensions_in_use,
        "facesDistance": rounded(read("p1.csv").iloc[0].fd_efflite, 0),
    }
    for name, row in scores.items():
        config = load_weights(os.path.join(ROOT, f"p{1 if name == 'vae' else 2}_{name}", "weights", f"{name}.pth"))[1]
        commands |= {f"{name}Distance": rounded(row.fd_efflite, 0), f"{name}Minutes": minutes(row.train_seconds),
                     f"{name}Epochs": str(len(logs[name])), f"{name}Steps": f"{int(logs[name].step.iloc[-1]):,}", f"{name}Width": str(config["width"])}
    write_text(path, "".join(f"\\newcommand{{\\{name}}}{{{text}}}\n" for name, text in commands.items()))
