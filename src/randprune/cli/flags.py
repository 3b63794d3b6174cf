"""Flags that stand for recipe keys: one table says both, so that none can drift from the other."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from randprune.cli import options
from randprune.cli.options import MODEL_HELP, RUN
from randprune.cli.trust import check_folder, check_trust
from randprune.errors import InvalidInputError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flag:
    """A command-line option that sets one key of a recipe.

    Attributes:
        key: the recipe's key, e.g. "search.candidates".
        names: the option's names; without any it is the command's argument.
        kind: what it takes: str, int, float, bool, list for repeatable texts, tuple for numbers
            with commas between them, or object for a number or a word.
        metavar: stands for the value in the help.
        text: the help.
        default: shown as the default, which the recipe has; "" shows none.
        panel: the heading that it stands under in the help.
        several: the recipe's key that numbers with commas between them set instead, if any.
    """

    key: str
    names: tuple[str, ...]
    kind: type
    metavar: str
    text: str
    default: str = ""
    panel: str = ""
    several: str = ""

    @property
    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of a Typer command: None or empty where it is not given."""
        taken: dict[type, Any] = {list: list[str], tuple: str, object: str}
        annotation = str if self.several else taken.get(self.kind, self.kind)
        text = self.text + (f" [dim]\\[default: {self.default}][/]" if self.default else "")
        common: dict[str, Any] = {
            "metavar": self.metavar or None,
            "help": text,
            "show_default": False,
            "rich_help_panel": self.panel or None,
        }
        declared = typer.Option(*self.names, **common) if self.names else typer.Argument(**common)
        return inspect.Parameter(
            self.key.replace(".", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[annotation | None, declared],
        )

    def values(self, given: Any) -> dict[str, Any]:
        """What the recipe gets, by key.

        Raises:
            InvalidInputError: no numbers where there should be.
        """
        if self.several:
            numbers = self._numbers(given, "a number, or several with commas between them", "0.5")
            if len(numbers) > 1:
                return {self.several: numbers}
            return {self.several: None, self.key: numbers[0]}
        if self.kind is tuple:
            several = "numbers with commas between them, one per channel"
            return {self.key: self._numbers(given, several, "0.5,0.5,0.5")}
        if self.kind is object:
            return {self.key: int(given) if given.isdecimal() else given}
        return {self.key: given}

    def _numbers(self, given: str, takes: str, example: str) -> list[float]:
        try:
            return [float(part) for part in given.split(",")]
        except ValueError:
            raise InvalidInputError(
                f"The option {self.names[0]} takes {takes}, such as {example}. Got {given!r} "
                "instead."
            ) from None


NETWORK, IMAGES, SEARCH, TRAINING = "Network", "Images", "Search and repair", "Fine-tuning"
WIDTHS, FINAL = "Shared weights and search", "Final training"

# fmt: off
PRUNE = (
    Flag("model.spec", (), str, "MODEL", MODEL_HELP),
    Flag("model.weights", ("--weights",), str, "FILE",
         "Trained weights: .safetensors, or .pt/.pth/.bin with tensors only.", "", NETWORK),
    Flag("model.num_classes", ("--num-classes",), int, "N",
         "Number of classes that the network tells apart.", "the network's own", NETWORK),
    Flag("model.in_channels", ("--in-channels",), int, "N",
         "Number of channels of the input.", "the network's own", NETWORK),
    Flag("model.freeze", ("--freeze",), list, "LAYER",
         "Never cut the output channels of this layer, a name or a pattern such as 'layer4.*'; can "
         "be repeated.",
         "", NETWORK),
    Flag("model.allow", ("--allow",), list, "OPERATION",
         "Also cut channels that pass through this operation (layer_norm, ...), although the "
         "result is then not exact; can be repeated.",
         "", NETWORK),
    Flag("model.as_graph", ("--as-graph/--as-module",), bool, "",
         "Also cut groups whose size is a constant in the forward pass. The pruned network is then "
         "a torch.fx graph.", "as module", NETWORK),
    Flag("data.spec", ("--data",), str, "SOURCE",
         "The data: digits, npz:DIR, imagefolder:DIR, cifar10:DIR or cifar100:DIR; for other tasks "
         "segmentation:DIR, csv:FILE or package.module:callable.", "", IMAGES),
    Flag("task.name", ("--task",), str, "TASK",
         "What the network is for: classification, multi_label, regression, segmentation, or "
         "outputs, which matches the outputs of the given network and needs no labels.",
         "classification of labelled images, outputs for other data", IMAGES),
    Flag("data.options.size", ("--image-size",), int, "N",
         "Height and width to which images are resized (imagefolder, digits).",
         "the images' own size if all are equally small, else 224", IMAGES),
    Flag("data.options.mean", ("--mean",), tuple, "R,G,B",
         "Mean of the pixels, scaled to [0, 1], with which the network was trained.",
         "for timm networks what timm says, else the data source's", IMAGES),
    Flag("data.options.std", ("--std",), tuple, "R,G,B",
         "Standard deviation of the pixels, like --mean.", "as for --mean", IMAGES),
    Flag("data.calibration", ("--calibration",), int, "N",
         "Number of training images for repair and for criteria that use data.",
         "10 %, at most 2000", IMAGES),
    Flag("data.search", ("--search-images",), int, "N",
         "Number of training images on which candidates are compared: finalists on all of them, "
         "the others on the first search.images (2000).", "20 %, at most 5000", IMAGES),
    Flag("data.calibration_data", ("--calibration-data",), str, "SOURCE",
         "Other images for repair and criteria, with which the network was not trained.", "",
         IMAGES),
    Flag("data.search_data", ("--search-data",), str, "SOURCE",
         "Other images on which candidates are compared, also new to the network.", "", IMAGES),
    Flag("budget.ratio", ("--budget", "-b"), float, "SHARE[,SHARE...]",
         "Share of the dense network's cost that remains, in (0, 1]; several give a network each.",
         "0.5", SEARCH, several="budget.ratios"),
    Flag("budget.metric", ("--metric",), str, "NAME",
         "The cost that the budget limits: macs, params, activations or latency.", "macs", SEARCH),
    Flag("budget.ms", ("--latency-ms",), float, "MS",
         "Milliseconds that a batch may take, instead of a share; means --metric latency.",
         "", SEARCH),
    Flag("budget.runtime", ("--runtime",), str, "NAME",
         "Of a latency: onnxruntime, openvino, torch or torch.compile.", "onnxruntime", SEARCH),
    Flag("budget.threads", ("--threads",), int, "N", "Of a latency: CPU threads.", "one", SEARCH),
    Flag("budget.batch", ("--latency-batch",), int, "N",
         "Of a latency: images a batch.", "one", SEARCH),
    Flag("budget.tolerance", ("--tolerance",), float, "SHARE",
         "How far the cost may be from the budget.", "0.005", SEARCH),
    Flag("preset", ("--preset",), str, "NAME",
         "Named settings to start from: default, thorough or paper. randprune presets shows them.",
         "default", SEARCH),
    Flag("criterion", ("--criterion",), str, "NAME",
         "The criterion that ranks the channels of a group: reconstruction, l1, l2, random, ...",
         "reconstruction", SEARCH),
    Flag("search.strategy", ("--strategy",), str, "NAME",
         "The search strategy, which proposes widths: lagrangian, random, uniform, ...",
         "lagrangian", SEARCH),
    Flag("search.candidates", ("--candidates", "-n"), int, "N",
         "Number of configurations that are repaired and evaluated.", "100", SEARCH),
    Flag("search.min_keep", ("--min-keep",), float, "SHARE",
         "Smallest share of its channels that a group may keep.", "0.1", SEARCH),
    Flag("search.round_to", ("--round-to",), object, "N",
         "Make every width a multiple of this number; auto: of 16 or 8 where the network is wide "
         "enough.", "auto", SEARCH),
    Flag("search.rank_by", ("--rank-by",), str, "NAME",
         "What candidates are ranked by: kl (how close their outputs are to the dense network's), "
         "loss or accuracy.", "kl", SEARCH),
    Flag("search.race", ("--race/--no-race",), bool, "",
         "Stop looking at a candidate that is clearly behind on the first images.", "no race",
         SEARCH),
    Flag("recovery", ("--recovery",), str, "NAME",
         "How candidates are repaired without training: none, bn, least_squares, ...",
         "least_squares", SEARCH),
    Flag("finalists.count", ("--finalists",), int, "N",
         "Number of the best candidates that are repaired again, with more effort.", "5", SEARCH),
    Flag("controls.random_search", ("--random-control/--no-random-control",), bool, "",
         "Also search as many random configurations, as a control.", "no random control", SEARCH),
    Flag("finetune.epochs", ("--epochs",), int, "N",
         "Epochs of fine-tuning.", "0, or 3 if another option of this group is given", TRAINING),
    Flag("finetune.lr", ("--lr",), float, "RATE", "Peak learning rate.", "0.01", TRAINING),
    Flag("finetune.batch_size", ("--batch-size",), int, "N", "Images per step.", "128", TRAINING),
    Flag("finetune.distill_weight", ("--distill",), float, "SHARE",
         "Weight in the loss of being close to the dense network's outputs, in [0, 1].", "0",
         TRAINING),
    Flag("seed", ("--seed",), int, "N", "Random seed.", "0", RUN),
    Flag("output.workers", ("--workers",), int, "N",
         "Number of processes that make and judge candidates side by side; 0: this one, with "
         "several threads.", "0", RUN),
    Flag("output.executor", ("--executor",), str, "NAME",
         "Whose processes: of this machine, or of a ray cluster.", "processes", RUN),
    Flag("output.address", ("--address",), str, "ADDRESS",
         "Of the Ray cluster: auto, HOST:PORT or ray://HOST:PORT.", "one of this machine", RUN),
    Flag("output.folder", ("--out", "-o"), str, "FOLDER",
         "Where the network, the records, the recipe and the report go.", "runs/...", RUN),
)
# fmt: on


def _of_prune(key: str, **changes: Any) -> Flag:
    """The flag of `prune` for a key, with changes."""
    return replace(next(flag for flag in PRUNE if flag.key == key), **changes)


# fmt: off
SCRATCH = (
    *map(_of_prune, ("model.spec", "model.num_classes", "model.in_channels", "model.freeze")),
    Flag("widen.factor", ("--factor",), float, "F",
         "How wide a layer may become, relative to its original width.", "1.5", NETWORK),
    *map(_of_prune, ("data.spec", "data.options.size", "data.options.mean", "data.options.std")),
    _of_prune("data.calibration", text="Training images for batch-norm statistics."),
    _of_prune("data.search"),
    _of_prune("budget.ratio", panel=WIDTHS, metavar="SHARE", several="",
              text="Share of the original network's cost that remains, in (0, 1]."),
    _of_prune("budget.metric", panel=WIDTHS),
    *(_of_prune(f"budget.{key}", panel=WIDTHS) for key in ("ms", "runtime", "threads", "batch")),
    _of_prune("budget.tolerance", panel=WIDTHS),
    Flag("supernet.epochs", ("--shared-epochs",), int, "N",
         "Epochs for which the shared weights are trained.", "20", WIDTHS),
    Flag("supernet.sandwich", ("--sandwich/--no-sandwich",), bool, "",
         "Each step also trains the widest and the narrowest configuration.",
         "no sandwich", WIDTHS),
    _of_prune("search.strategy", panel=WIDTHS, default="random",
              text="The search strategy, which proposes widths: random, uniform, evolution, ..."),
    _of_prune("search.candidates", panel=WIDTHS,
              text="Number of configurations that are evaluated with shared weights."),
    _of_prune("search.min_keep", panel=WIDTHS,
              text="Smallest share of its largest width that a layer may have."),
    _of_prune("search.round_to", panel=WIDTHS),
    Flag("training.epochs", ("--epochs",), int, "N",
         "Epochs of each final training.", "20", FINAL),
    Flag("training.lr", ("--lr",), float, "RATE", "Peak learning rate.", "0.1", FINAL),
    Flag("training.batch_size", ("--batch-size",), int, "N", "Images per step.", "128", FINAL),
    Flag("training.seeds", ("--seeds",), int, "N",
         "How many times each network is trained, with other seeds.", "1", FINAL),
    Flag("training.standalone", ("--standalone",), int, "N",
         "Number of other candidates to train alone, for the rank correlation.", "0", FINAL),
    Flag("controls.pretrained", ("--pretrained/--no-pretrained",), bool, "",
         "Also train, prune and fine-tune the original network, with the same compute.",
         "pretrained", FINAL),
    _of_prune("seed"),
    _of_prune("output.folder"),
)

_PLACED = ("model", "task", "data", "criterion", "search", "recovery", "seed", "output")
_NOT_PLACED = (
    "search.strategy", "search.race", "output.workers", "output.executor", "output.address",
)
PLACE = tuple(
    flag
    for flag in PRUNE
    if (flag.key.partition(".")[0] in _PLACED or flag.key in ("budget.metric", "budget.tolerance"))
    and flag.key not in _NOT_PLACED
)
CARD = (*PLACE, *(flag for flag in PRUNE if flag.key == "budget.ratio"))

BENCH = (
    _of_prune("model.spec", names=("--model",), metavar="MODEL", default="the recipe's",
              panel=NETWORK),
    _of_prune("model.weights"),
    _of_prune("data.spec", default="the recipe's"),
    Flag("design.draws", ("--draws",), int, "N",
         "How many times configurations are drawn, each time with another seed.", "the recipe's",
         RUN),
    Flag("design.trainings", ("--trainings",), int, "N",
         "How many times each proposed network is trained.", "the recipe's", RUN),
    _of_prune("seed"),
    _of_prune("output.workers", default="one per core",
              text="Number of processes that work side by side; 0 does everything in this one."),
    _of_prune("output.executor"),
    _of_prune("output.address"),
    _of_prune("output.folder", text="Where the records, the recipe and the tables go."),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line asks of a command that does a recipe; its fields are options of all.

    `given`: recipe key -> value, of the command's own flags that were given.
    """

    given: Mapping[str, Any]
    recipe: options.RecipeFile = None
    settings: options.Settings = None
    trust_plugins: options.TrustPlugins = False
    device: options.Device = None
    track: options.Track = None
    dry_run: options.DryRun = False
    json: options.Json = False
    quiet: options.Quiet = False
    debug: options.Debug = False

    def document(self, file: Path | None) -> dict[str, Any]:
        """The recipe as plain data: the file's content, over it the flags, over them `--set`.

        Raises:
            InvalidInputError: see `recipe_document`.
        """
        return recipe_document(file, self.given, self.settings or (), trusted=self.trust_plugins)


def with_flags(
    flags: Sequence[Flag], without: Collection[str] = ()
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorator that gives a command these flags and those of `Asked`, its first parameter.

    Args:
        flags: of the recipe's keys.
        without: fields of `Asked` that the command does not take.
    """
    shared = [
        inspect.Parameter(
            field.name, _KEYWORD, default=field.default, annotation=_OF_ASKED[field.name]
        )
        for field in fields(Asked)
        if field.name != "given" and field.name not in without
    ]

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        parameters = [flag.parameter for flag in flags]

        def run(**values: Any) -> T:
            taken = [values.pop(parameter.name) for parameter in parameters]
            given: dict[str, Any] = {}
            for flag, value in zip(flags, taken, strict=True):
                if value is not None and value != []:
                    given |= flag.values(value)
            common = {parameter.name: values.pop(parameter.name) for parameter in shared}
            return command(Asked(given, **common), **values)

        signature = inspect.Signature(
            [*parameters, *(parameter.replace(kind=_KEYWORD) for parameter in own), *shared]
        )
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_OF_ASKED = get_type_hints(Asked, include_extras=True)


def recipe_document(
    file: Path | None,
    given: Mapping[str, Any],
    settings: Iterable[str] = (),
    *,
    trusted: bool = False,
) -> dict[str, Any]:
    """The recipe as plain data: the file's content, over it the flags, over them `--set`.

    Args:
        file: a TOML recipe, or None.
        given: recipe key -> value, of the flags that were given.
        settings: texts such as "finetune.lr=0.02" or "data.options.size=128".
        trusted: the file may name code: plug-ins, or a network of another package.

    Raises:
        InvalidInputError: the file cannot be read, names code or a folder outside of the working
            directory (see `randprune.cli.trust`), or a setting is malformed.
    """
    found = _read(file) if file is not None else {}
    settings = list(settings)
    if file is not None:
        overridden = {*given, *(setting.partition("=")[0].strip() for setting in settings)}
        if not trusted:
            check_trust(found, file, overridden)
        check_folder(found, file, overridden)
    for key, value in given.items():
        _put(found, key, value)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise InvalidInputError(
                "The option --set takes a recipe key and a value, such as finetune.lr=0.02. "
                f"Got {setting!r} instead."
            )
        _put(found, key.strip(), _value(text.strip()))
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidInputError(f"The recipe {file} cannot be read: {reason}.") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"The recipe {file} is not valid TOML: {error}.") from None


def _put(document: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = document.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InvalidInputError(f"The recipe key {section!r} holds {inner!r}, not a table.")
        document = inner
    document[last] = value


def _value(text: str) -> Any:
    """A TOML value, or the text itself where it is none: `--set criterion=l2` needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
