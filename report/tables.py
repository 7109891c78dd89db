"""The report's tables and numbers as LaTeX commands, made from report/results, the logs and the weights' settings."""
import shlex

import pandas

from common.data import SCENARIOS
from common.files import write_output
from common.weights import load_weights
from p2_gan.model import MODELS
from report.run_digits import TABLES, mean_and_std, read_table, table_rows
from report.run_faces import GANS as GAN_ROWS
from report.run_faces import VAES as VAE_ROWS
from report.runs import RESULTS, ROOT

TITLES = {"usps": "USPS", "mnistm": "MNIST-M", "svhn": "SVHN"}
PAIRS = [f"{TITLES.get(source, source)} → {TITLES.get(target, target)}" for target, source in SCENARIOS.items()]
CODES = [source[0].upper() + target[0] for target, source in SCENARIOS.items()]  # Um: in commands' names and peers.csv
PEERS_FILE = ROOT / "report" / "peers.csv"
PEERS = {"source": "source only", "dann": "DANN", "improved": "improved method", "target": "target only"}
VAES = {"real faces": "other real faces", "plain": "plain VAE", "shipped": "shipped model",
        "repeated": "shipped, again"}  # the other rows differ by their columns alone
GANS = {"real faces": "other real faces", "dcgan": "DCGAN", "width_16": "small GAN", "width_32": "earlier GAN",
        "shipped": "shipped GAN"}
FACES = {("p1", "real faces"): "other real faces", ("p1", "plain"): "VAE, plain", ("p1", "shipped"): "VAE, shipped",
         **{("p2", row): GANS[row] for row in ("dcgan", "width_16", "width_32", "shipped")}}
# name of a command -> the table and the two rows whose difference it holds
GAINS = {"dannGain": ("p3", "dann", "source"), "dannPlainGain": ("p3", "dann_plain", "source_plain"),
         "augmentationGain": ("p3", "source", "source_plain"), "udaGain": ("p4", "uda", "source"),
         "udaGap": ("p4", "uda", "target")}
ABLATION_GAINS = {"alignment": "no_align", "threshold": "no_relative", "balance": "no_balance", "allParts": "fixmatch"}
# how the commands of a shipped model begin -> its weights and the settings that the report names
SETTINGS = {"vae": ("p1_vae/weights/vae.pth", ("epochs", "batch_size", "lr", "kl_weight", "latent_dim", "flow_epochs")),
            "gan": ("p2_gan/weights/gan.pth", ("epochs", "batch_size", "warm_up", "lr", "lr_end",
                                               "lr_discriminator_end", "r1", "r1_end", "shifted")),
            "dann": ("p3_dann/weights/usps_mnistm.pth", ("epochs", "steps", "batch_size", "lr", "reversal")),
            "uda": ("p4_uda/weights/usps_mnistm.pth", ("epochs", "steps", "batch_size", "lr", "threshold"))}


def read(name):
    return pandas.read_csv(RESULTS / name)


def read_faces(table):
    """The results of problem 1 or 2 by row; exits with one line where a row has none."""
    results = read(f"{table}.csv").set_index("row")
    for row in {"p1": VAE_ROWS, "p2": GAN_ROWS}[table].keys() - set(results.index):
        raise SystemExit(f"report/results/{table}.csv has no row {row}")
    return results


def power(value):
    """A number for LaTeX: 3e-05 as a power of ten, what is no smaller than 0.01 as it is."""
    if value >= 0.01:
        return f"{value:,g}"
    digits, exponent = f"{value:.2e}".split("e")
    factor = "" if float(digits) == 1 else rf"{float(digits):g} \cdot "
    return f"${factor}10^{{{int(exponent)}}}$"


def rounded(value, digits=0):
    return "" if pandas.isna(value) else f"{value:,.{digits}f}"


def minutes(seconds):
    return rounded(seconds / 60)


def escape(text):
    for plain, latex in (("%", r"\%"), ("→", r"$\to$"), ("±", r"$\pm$"), ("λ", r"$\lambda$")):
        text = text.replace(plain, latex)
    return text


def tabular(header, rows):
    """A table of strings, its first column to the left, the others to the right."""
    lines = [" & ".join(map(escape, row)) + r" \\" for row in (header, *rows)]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", lines[0], r"\midrule",
                      *lines[1:], r"\bottomrule", r"\end{tabular}"])


def vae_runs():
    """The rows of p1.csv as dicts, with a name in words, and epochs and width: the command's or the shipped model's."""
    config = load_weights(ROOT / SETTINGS["vae"][0])[1]
    for row in read("p1.csv").to_dict("records"):
        words = shlex.split(row["command"]) if isinstance(row["command"], str) else []
        options = dict(zip(words[2::2], words[3::2]))
        settings = {key: int(options.get(f"--{key}", config[key])) if words else None for key in ("epochs", "width")}
        yield {**row, **settings, "name": VAES.get(row["row"], "VAE")}


def vae_rows():
    for run in map(pandas.Series, vae_runs()):
        weight = "" if pandas.isna(run.kl_weight) else power(run.kl_weight)
        yield (run["name"], rounded(run.epochs), rounded(run.width), weight, rounded(run.test_mse, 4), rounded(run.kl),
               rounded(run.dimensions_in_use), rounded(run.fd_reconstructed), rounded(run.fd_normal),
               rounded(None if run.row == "plain" else run.fd_efflite), minutes(run.train_seconds))


def gan_rows():
    for run in read("p2.csv").itertuples():
        yield (GANS.get(run.row, run.row), rounded(run.steps), rounded(100 * run.accuracy_real),
               rounded(100 * run.accuracy_fake), rounded(run.fd_efflite, 1), minutes(run.train_seconds))


def face_rows():
    tables = {table: read_faces(table) for table in ("p1", "p2")}
    for (table, row), title in FACES.items():
        run = tables[table].loc[row]
        yield (title, rounded(run.fd_efflite, 1), rounded(run.fd_test, 1), rounded(run.precision, 2),
               rounded(run.recall, 3))


def sampling_rows():
    for row in read("p1_sampling.csv").itertuples():
        yield row.row, rounded(row.fd_efflite), rounded(row.precision, 2), rounded(row.recall, 3)


def domain_accuracies():
    """Of DANN's discriminator in the last epoch, for each pair."""
    for target, source in SCENARIOS.items():
        yield read(f"p3_{source}_{target}_log.csv")["domain_accuracy"].iloc[-1]


def peer_rows(names):
    """The best published accuracy of each kind."""
    peers = read(PEERS_FILE)
    for name in names:
        columns = [f"{name}_{code.lower()}" for code in CODES]
        yield f"best public answer, {PEERS[name]}", *(rounded(peers[c].max(), 1) if c in peers else "" for c in columns)


def gain(table, better, worse, target):
    """How far a row is above another, in points: mean and deviation of the differences by seed."""
    results = read_table(table).query("target == @target")
    results = results.assign(accuracy=100 * results["correct"] / results["total"])  # not rounded
    accuracy = results.pivot(index="seed", columns="mode", values="accuracy")
    difference = accuracy[better] - accuracy[worse]
    return rf"${difference.mean():+.1f}" + (rf" \pm {difference.std():.1f}$" if len(difference) > 1 else "$")


def shipped_row(table, mode, title):
    """What the homework's script prints: the accuracies of seed 0's models, which are shipped."""
    accuracy = read_table(table).query("mode == @mode and seed == 0").set_index("target")["accuracy"]
    return title, *(f"{accuracy[target]:.2f}" for target in SCENARIOS)


def public_rows():
    """Public models of this homework on our test images, and in brackets what their authors print for the course's."""
    for row in read(ROOT / "report" / "public_models.csv").to_dict("records"):
        cells = [(row[f"{target}_here"], row[f"{target}_printed"]) for target in SCENARIOS]
        yield f"{row['repository']}, {row['method']}", *("" if pandas.isna(here) else f"{here:.1f} ({printed:.1f})"
                                                         for here, printed in cells)


def polarity_information():
    """AdaMatch's information in short runs, summed over the pairs, for each way to invert the channels."""
    sums = read("p4_polarity.csv").groupby("polarity")["target_information"].sum()
    return {f"polarity{name.title()}": f"{total:.3f}" for name, total in sums.items()}


def lambda_information():
    """DANN's information in the last epoch of seed 0 on the three pairs, and its sum, for each final lambda."""
    rows = pandas.concat([read_table("p3_lambda"), read_table("p3").query("mode == 'dann'").assign(mode="0.3")])
    table = rows.query("seed == 0").pivot(index="mode", columns="target", values="target_information")
    for mode, name in {"0.1": "Small", "0.3": "Used", "1": "Large"}.items():
        values = table.loc[mode, list(SCENARIOS)]
        yield f"lambda{name}", " / ".join(f"{v:.2f}" for v in values) + f" (sum {values.sum():.2f})"


def ablation_rows():
    results = read_table("p4_ablation").groupby("mode")
    for mode, (title, _) in TABLES["p4_ablation"].items():
        rows = results.get_group(mode)
        information = f"{rows['target_information'].mean():.3f} ± {rows['target_information'].std():.3f}"
        yield title, mean_and_std(rows["accuracy"].mean(), rows["accuracy"].std()), information


def setting_commands():
    """A command for each setting of SETTINGS, such as vaeBatchSize, and the number of weights in millions."""
    for model, (path, names) in SETTINGS.items():
        state, config = load_weights(ROOT / path)
        for name in names:  # a command's name has no digits
            words = name.replace("r1", "penalty").split("_")
            yield model + "".join(map(str.capitalize, words)), power(config[name])
        sizes = {name: v.numel() for name, v in state.items() if name.endswith(("weight", "bias"))}
        flow = sum(size for name, size in sizes.items() if name.startswith("flow."))
        if model in ("vae", "gan", "dann"):
            yield f"{model}Weights", f"{(sum(sizes.values()) - flow) / 1e6:.2g}"
        if model == "gan":  # the file holds the generator alone
            discriminator = MODELS[config["model"]][1](config["width"])
            yield "ganDiscriminatorWeights", f"{sum(p.numel() for p in discriminator.parameters()) / 1e6:.2g}"
        if flow:
            yield f"{model}FlowWeights", f"{flow / 1e6:.2g}"


def face_commands():
    """Commands for problems 1 and 2."""
    vaes, gans = read_faces("p1"), read_faces("p2")
    samples = read("p1_sampling.csv")["fd_efflite"]  # in the order of its rows
    sweep = vaes[vaes.index.str.startswith("lambda_")]
    vae_log, gan_log = read("p1_vae_log.csv"), read("p2_gan_log.csv")
    # percent, real and generated faces, after the collapses
    accuracies = 100 * gan_log.query("epoch >= 13")[["accuracy_real", "accuracy_fake"]].stack()
    return {
        "vaeTable": tabular(["", "epochs", "width", r"$\lambda_{KL}$", "test MSE", "KL, nats", "dim. used",
                             "reconstr.", "$N(0, I)$", "flow", "minutes"], vae_rows()),
        "ganTable": tabular(["", "steps", "accuracy, real, %", "accuracy, generated, %", "FD-EffLite", "minutes"],
                            gan_rows()),
        "facesTable": tabular(["", "FD-EffLite", "to test faces", "precision", "recall"], face_rows()),
        "samplingTable": tabular(["codes from", "FD-EffLite", "precision", "recall"], sampling_rows()),
        **{f"sampling{name}": rounded(value) for name, value in zip(("Normal", "Gaussian", "Flow"), samples)},
        "truncationDistance": rounded(read("p2_truncation.csv").set_index("row")["fd_efflite"][1.2], 1),
        "facesDistance": rounded(vaes["fd_efflite"]["real faces"]),
        "vaeMse": rounded(vaes["test_mse"]["shipped"], 4),
        "vaeKlLowest": rounded(vae_log["kl"].min()), "vaeKlLast": rounded(vae_log["kl"].iloc[-1]),
        "vaeBestNormal": power(sweep["kl_weight"][sweep["fd_normal"].idxmin()]),
        "vaeStepsPerEpoch": rounded(vae_log["step"][0]), "ganStepsPerEpoch": rounded(gan_log["step"][0]),
        "vaeMinutes": minutes(vaes["train_seconds"]["shipped"]),
        "vaeFlowMinutes": minutes(vaes["flow_seconds"]["shipped"]),
        "vaeRepeatedMinutes": minutes(vaes["train_seconds"]["repeated"] + vaes["flow_seconds"]["repeated"]),
        "vaeRepeatedDistance": rounded(vaes["fd_efflite"]["repeated"], 1),
        "ganMinutes": minutes(gans["train_seconds"]["shipped"]),
        "vaeDistance": rounded(vaes["fd_efflite"]["shipped"]), "plainDistance": rounded(vaes["fd_efflite"]["plain"]),
        "vaeReconstructed": rounded(vaes["fd_reconstructed"]["shipped"]),
        "ganDistance": rounded(gans["fd_efflite"]["shipped"], 1),
        "ganNarrowDistance": rounded(gans["fd_efflite"]["width_16"], 1),
        "ganEarlierDistance": rounded(gans["fd_efflite"]["width_32"], 1),
        "dcganDistance": rounded(gans["fd_efflite"]["dcgan"], 1),
        "ganCopies": rounded(100 * gans["nearer_to_training"]["shipped"]),
        "realCopies": rounded(100 * gans["nearer_to_training"]["real faces"]),
        "ganAccuracies": "{:.0f} to {:.0f}".format(*accuracies.agg(["min", "max"]))}


def digit_commands():
    """Commands for problems 3 and 4."""
    dann, uda = table_rows("p3"), table_rows("p4")
    peers = read(PEERS_FILE)
    svhn = read_table("p4").query("target == 'svhn' and mode == 'uda'")
    return {
        "dannTable": tabular(["", *PAIRS], [*dann.values(),
                                            shipped_row("p3", "dann", r"\texttt{hw3\_p3.sh} (DANN, seed 0)"),
                                            *peer_rows(["source", "dann", "target"])]),
        "udaTable": tabular(["", *PAIRS], [dann["dann"], dann["dann_strong"], *uda.values(),
                                           shipped_row("p4", "uda", r"\texttt{hw3\_p4.sh} (AdaMatch, seed 0)"),
                                           *peer_rows(["improved"])]),
        "publicTable": tabular(["", *PAIRS], public_rows()), **dict(lambda_information()), **polarity_information(),
        "udaScores": escape(" & ".join(uda["uda"][1:])),
        "ablationTable": tabular(["", "accuracy, %", "target information, nats"], ablation_rows()),
        **{f"{name}{code}": gain(*rows, target) for name, rows in GAINS.items()
           for code, target in zip(CODES, SCENARIOS)},
        **{f"{name}Gain": gain("p4_ablation", "full", row, "svhn") for name, row in ABLATION_GAINS.items()},
        "domainAccuracies": " / ".join(f"{100 * accuracy:.0f}" for accuracy in domain_accuracies()),
        "peersCount": rounded(len(peers)), "peersBelow": rounded((peers["dann_su"] < peers["source_su"]).sum()),
        "svhnTest": rounded(svhn["total"].iloc[0]),
        "udaLowest": rounded(svhn["accuracy"].min(), 1), "udaHighest": rounded(svhn["accuracy"].max(), 1)}


def write_tables(path):
    """Write \\newcommand for each table and number of report.tex."""
    commands = {**face_commands(), **digit_commands(), **dict(setting_commands())}
    write_output(path, "".join(f"\\newcommand{{\\{n}}}{{{text}}}\n" for n, text in commands.items()).encode())
