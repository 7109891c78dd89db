"""The report's tables and numbers as LaTeX commands, made from report/results, the logs and the weights' settings."""
import pandas

from common.data import SCENARIOS
from common.files import write_output
from common.weights import load_weights
from p2_gan.model import MODELS
from report.run_digits import TABLES, mean_and_std, read_table, table_rows
from report.run_faces import REAL, read_faces
from report.runs import RESULTS, ROOT, latex_number

TITLES = {"usps": "USPS", "mnistm": "MNIST-M", "svhn": "SVHN"}
PAIRS = [f"{TITLES.get(source, source)} → {TITLES.get(target, target)}" for target, source in SCENARIOS.items()]
CODES = [source[0].upper() + target[0] for target, source in SCENARIOS.items()]  # Um: in commands' names and peers.csv
PEERS_FILE = ROOT / "report" / "peers.csv"
PEERS = {"source": "source only", "dann": "DANN", "improved": "improved method", "target": "target only"}
# the tables of faces: header -> (column of the results, how its numbers are written)
VAE_COLUMNS = {"test MSE": ("test_mse", ".4f"), "KL, nats": ("kl", ",.0f"), "FD rec.": ("fd_reconstructed", ".0f"),
               "FD $N(0, I)$": ("fd_normal", ".0f"), "FD flow": ("fd_efflite", ".0f")}
FACE_COLUMNS = {"FD-EffLite": ("fd_efflite", ".1f"), "to test faces": ("fd_test", ".1f"),
                "FD-people": ("fd_people", ".1f"), "precision": ("precision", ".3f"), "recall": ("recall", ".3f")}
# name of a command -> the two rows whose difference it holds
GAINS = {"dannGain": ("p3 dann", "p3 source"), "dannPlainGain": ("p3 dann_plain", "p3 source_plain"),
         "augmentationGain": ("p3 source", "p3 source_plain"), "strongGain": ("p3 dann_strong", "p3 dann"),
         "reversalGain": ("p3 dann", "p3 no_reversal"), "targetGain": ("p3 no_reversal", "p3 source"),
         "strongGap": ("p4 uda", "p3 dann_strong"),
         "udaLead": ("p4 uda", "p3 dann"), "udaGain": ("p4 uda", "p4 source"), "udaGap": ("p4 uda", "p4 target")}
ABLATION_GAINS = {"alignment": "no_align", "threshold": "no_relative", "balance": "no_balance", "allParts": "fixmatch"}
# how the commands of a shipped model begin -> its weights and the settings that the report names
SETTINGS = {"vae": ("p1_vae/weights/vae.pth", ("epochs", "batch_size", "lr", "kl_weight", "latent_dim", "flow_epochs")),
            "gan": ("p2_gan/weights/gan.pth", ("epochs", "batch_size", "lr", "lr_discriminator_end", "r1", "r1_end")),
            "dann": ("p3_dann/weights/usps_mnistm.pth", ("epochs", "steps", "batch_size", "lr", "reversal")),
            "uda": ("p4_uda/weights/usps_mnistm.pth", ("epochs", "steps", "batch_size", "lr", "threshold"))}


def read(name):
    return pandas.read_csv(RESULTS / name)


def refuse_other_images(sets, names, script):
    """Exit with one line if two tables that are printed together were scored on more than one set of images."""
    if sets > 1:
        raise SystemExit(f"report/results/{names} were scored on different images: make one of them anew with {script}")


def read_shipped(log, seconds, command):
    """A shipped model's log; exits with one line if it is not of the row whose training took so many seconds."""
    if round(read(log)["seconds"].sum()) != seconds:
        raise SystemExit(f"report/results/{log} and its weights are not of the row in the table: run {command} --ship")
    return read(log)


def rounded(value, digits=0):
    return "" if pandas.isna(value) else f"{value:,.{digits}f}"


def escape(text):
    for plain, latex in (("%", r"\%"), ("→", r"$\to$"), ("±", r"$\pm$")):
        text = text.replace(plain, latex)
    return text


def tabular(header, rows):
    """A table of strings, its first column to the left, the others to the right."""
    lines = [" & ".join(map(escape, row)) + r" \\" for row in (header, *rows)]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", lines[0], r"\midrule",
                      *lines[1:], r"\bottomrule", r"\end{tabular}"])


def face_table(results, columns):
    """A table of rows of run_faces.py."""
    rows = ([run["title"], *("" if pandas.isna(run[column]) else format(run[column], spec)
                             for column, spec in columns.values())] for _, run in results.iterrows())
    return tabular(["", *columns], rows)


def peer_rows(names):
    """The best published accuracy of each kind."""
    peers = read(PEERS_FILE)
    for name in names:
        columns = [f"{name}_{code.lower()}" for code in CODES]
        yield f"best public answer, {PEERS[name]}", *(rounded(peers[c].max(), 1) if c in peers else "" for c in columns)


def accuracies(row, target):
    """In %, not rounded, by seed, of a row such as "p3 dann"."""
    table, mode = row.split()
    results = read_table(table).query("mode == @mode and target == @target").set_index("seed")
    return 100 * results["correct"] / results["total"]


def gain(better, worse, target):
    """How far a row is above another, in points: mean and deviation of the differences by seed."""
    difference = (accuracies(better, target) - accuracies(worse, target)).dropna()
    return rf"${difference.mean():+.1f}" + (rf" \pm {difference.std():.1f}$" if len(difference) > 1 else "$")


def shipped_row(table, mode, title):
    """What the homework's script prints: the accuracies of seed 0's models, which are shipped with their logs."""
    rows = read_table(table).query("mode == @mode and seed == 0").set_index("target")
    for target, source in SCENARIOS.items():
        read_shipped(f"{table}_{source}_{target}_log.csv", rows["train_seconds"][target], f"run_digits.py {table}")
    return title, *(f"{rows['accuracy'][target]:.2f}" for target in SCENARIOS)


def public_rows():
    """Public models of this homework on our test images, and in brackets what their authors print for the course's."""
    for repository, method, *cells in read(ROOT / "report" / "public_models.csv").fillna("").values:
        yield f"{repository}, {method}", *cells


def ablation_rows():
    results = read_table("p4_ablation").groupby("mode")
    for mode, (title, _) in TABLES["p4_ablation"].items():
        rows = results.get_group(mode)
        information = f"{rows['target_information'].mean():.3f} ± {rows['target_information'].std():.3f}"
        yield title, mean_and_std(rows["accuracy"]), information


def setting_commands():
    """A command for each setting of SETTINGS, such as vaeBatchSize, and the number of weights in millions."""
    for model, (path, names) in SETTINGS.items():
        state, config = load_weights(ROOT / path)
        for name in names:
            value = config[name.removesuffix("_end")]
            if isinstance(value, list):  # what falls, from its first to its last value
                value = value[name.endswith("_end")]
            words = name.replace("r1", "penalty").split("_")  # a command's name has no digits
            yield model + "".join(map(str.capitalize, words)), latex_number(value)
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
    vaes, gans = map(read_faces, ("p1", "p2"))
    refuse_other_images(pandas.concat([vaes, gans])["scored_crc32"].nunique(dropna=False), "p1.csv and p2.csv",
                        "run_faces.py")
    vae_log = read_shipped("p1_vae_log.csv", vaes["train_seconds"]["shipped"], "run_faces.py p1 --only shipped")
    gan_log = read_shipped("p2_gan_log.csv", gans["train_seconds"]["shipped"], "run_faces.py p2 --only shipped")
    vae, gan = vaes.loc["shipped"], gans.loc["shipped"]
    recognised = 100 * gan_log[["accuracy_real", "accuracy_fake"]].stack()
    return {
        "vaeTable": face_table(vaes.drop(REAL), VAE_COLUMNS),
        "facesTable": face_table(pandas.concat([vaes.loc[[REAL, "shipped"]], gans.drop(REAL)]), FACE_COLUMNS),
        "facesDistance": rounded(vaes["fd_efflite"][REAL]), "vaeMse": rounded(vae["test_mse"], 4),
        "vaeKlLast": rounded(vae_log["kl"].iloc[-1]),
        "vaeStepsPerEpoch": rounded(vae_log["step"][0]), "ganStepsPerEpoch": rounded(gan_log["step"][0]),
        "vaeMinutes": rounded(vae["train_seconds"] / 60), "vaeFlowMinutes": rounded(vae["flow_seconds"] / 60),
        "ganMinutes": rounded(gan["train_seconds"] / 60),
        "vaeDistance": rounded(vae["fd_efflite"]), "vaeNormal": rounded(vae["fd_normal"]),
        "vaeReconstructed": rounded(vae["fd_reconstructed"]), "ganDistance": rounded(gan["fd_efflite"], 1),
        "ganAccuracies": f"{recognised.min():.0f} to {recognised.max():.0f}"}


def digit_commands():
    """Commands for problems 3 and 4."""
    dann, uda = table_rows("p3"), table_rows("p4")
    p3, p4 = read_table("p3"), read_table("p4")
    polarity = read("p4_polarity.csv").groupby("polarity")["target_information"].sum()  # over the pairs
    refuse_other_images(pandas.concat([p3, p4]).groupby("target")["scored_crc32"].nunique().max(), "p3.csv and p4.csv",
                        "run_digits.py")
    logs = [read(f"p3_{source}_{target}_log.csv") for target, source in SCENARIOS.items()]
    used = p3.query("mode == 'dann' and seed == 0").assign(reversal=0.3)
    reversal = pandas.concat([read("p3_lambda.csv"), used]).groupby("reversal")["target_information"].sum()
    information = p3.query("seed == 0").groupby("mode")["target_information"].sum()
    peers = read(PEERS_FILE)
    svhn = p4.query("target == 'svhn' and mode == 'uda'")
    return {
        "dannTable": tabular(["", *PAIRS], [*dann.values(),
                                            shipped_row("p3", "dann", r"\texttt{hw3\_p3.sh} (DANN, seed 0)"),
                                            *peer_rows(["source", "dann", "target"])]),
        "udaTable": tabular(["", *PAIRS], [*uda.values(),
                                           shipped_row("p4", "uda", r"\texttt{hw3\_p4.sh} (AdaMatch, seed 0)"),
                                           dann["dann"], dann["dann_strong"], *peer_rows(["improved"])]),
        "publicTable": tabular(["", *PAIRS], public_rows()),
        **{f"polarity{name.title()}": f"{total:.3f}" for name, total in polarity.items()},
        "dannInformation": f"{information['dann']:.2f}", "plainInformation": f"{information['dann_plain']:.2f}",
        "lambdaInformation": " / ".join(map("{:.2f}".format, reversal)),  # of 0.1, 0.3 and 1
        "udaScores": escape(" & ".join(uda["uda"][1:])),
        "ablationTable": tabular(["", "accuracy, %", "target information, nats"], ablation_rows()),
        **{f"{name}{code}": gain(*rows, target) for name, rows in GAINS.items()
           for code, target in zip(CODES, SCENARIOS)},
        **{f"{name}Gain": gain("p4_ablation full", f"p4_ablation {row}", "svhn")
           for name, row in ABLATION_GAINS.items()},
        "domainAccuracies": " / ".join(f"{100 * log['domain_accuracy'].iloc[-1]:.0f}" for log in logs),
        "peersCount": rounded(len(peers)), "peersBelow": rounded((peers["dann_su"] < peers["source_su"]).sum()),
        "svhnTest": rounded(svhn["total"].iloc[0]),
        "udaLowest": rounded(svhn["accuracy"].min(), 1), "udaHighest": rounded(svhn["accuracy"].max(), 1)}


def write_tables(path):
    """Write \\newcommand for each table and number of report.tex."""
    commands = {**face_commands(), **digit_commands(), **dict(setting_commands())}
    write_output(path, "".join(f"\\newcommand{{\\{n}}}{{{text}}}\n" for n, text in commands.items()).encode())
