"""Flags that stand for recipe keys: one table says both, so that none can drift from the other."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

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
        kind: what it takes: str, int, float, bool, list for repeatable texts, or tuple for numbers
            with commas between them.
        metavar: stands for the value in the help.
        text: the help.
        default: shown as the default, which the recipe has; "" shows none.
        panel: the heading that it stands under in the help.
    """

    key: str
    names: tuple[str, ...]
    kind: type
    metavar: str
    text: str
    default: str = ""
    panel: str = ""

    @property
    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of a Typer command: None or empty where it is not given."""
        taken: dict[type, Any] = {list: list[str], tuple: str}
        annotation = taken.get(self.kind, self.kind)
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

    def value(self, given: Any) -> Any:
        """What the recipe gets.

        Raises:
            InvalidInputError: no numbers where there should be.
        """
        if self.kind is not tuple:
            return given
        try:
            return [float(part) for part in given.split(",")]
        except ValueError:
            raise InvalidInputError(
                f"The option {self.names[0]} takes numbers with commas between them, one a "
                f"channel, such as 0.5,0.5,0.5. Got {given!r} instead."
            ) from None


NETWORK, IMAGES, SEARCH, TRAINING = "Network", "Images", "Search and repair", "Fine-tuning"
WIDTHS, FINAL = "Shared weights and search", "Final training"

# fmt: off
PRUNE = (
    Flag("model.spec", (), str, "[MODEL]", MODEL_HELP),
    Flag("model.weights", ("--weights",), str, "FILE",
         "Trained weights: .safetensors, or .pt/.pth/.bin with tensors only.", "", NETWORK),
    Flag("model.num_classes", ("--num-classes",), int, "N",
         "Outputs.", "the network's own", NETWORK),
    Flag("model.in_channels", ("--in-channels",), int, "N",
         "Input channels.", "the network's own", NETWORK),
    Flag("model.freeze", ("--freeze",), list, "LAYER",
         "Keep this layer's outputs (a name or a pattern such as 'layer4.*'); repeatable.",
         "", NETWORK),
    Flag("model.allow", ("--allow",), list, "OPERATION",
         "Also cut across this operation (layer_norm, ...), not exactly; repeatable.",
         "", NETWORK),
    Flag("model.as_graph", ("--as-graph/--as-module",), bool, "",
         "Also cut what needs constants of the forward recomputed; gives a torch.fx graph.",
         "as module", NETWORK),
    Flag("data.spec", ("--data",), str, "SOURCE",
         "digits, npz:DIR, imagefolder:DIR, cifar10:DIR or cifar100:DIR.", "", IMAGES),
    Flag("data.options.size", ("--image-size",), int, "N",
         "Height and width that images are brought to (imagefolder, digits).",
         "the images' own where all are equally small, else 224", IMAGES),
    Flag("data.options.mean", ("--mean",), tuple, "R,G,B",
         "Mean of pixels in [0, 1], as the network was trained.",
         "timm's for its networks, else the data source's", IMAGES),
    Flag("data.options.std", ("--std",), tuple, "R,G,B",
         "Their standard deviation.", "likewise", IMAGES),
    Flag("data.calibration", ("--calibration",), int, "N",
         "Training images for repair and for criteria that look at data.",
         "10 %, at most 2000", IMAGES),
    Flag("data.search", ("--search-images",), int, "N",
         "Training images that candidates are compared on: finalists on all of them, the others on "
         "the first search.images (2000).", "20 %, at most 5000", IMAGES),
    Flag("budget.ratio", ("--budget", "-b"), float, "SHARE",
         "What remains of the dense cost, in (0, 1].", "0.5", SEARCH),
    Flag("budget.metric", ("--metric",), str, "NAME",
         "The cost that the budget limits: macs, params or activations.", "macs", SEARCH),
    Flag("budget.tolerance", ("--tolerance",), float, "SHARE",
         "How far from the budget is accepted.", "0.005", SEARCH),
    Flag("preset", ("--preset",), str, "NAME",
         "Settings that the other options change: default, paper; see randprune presets.",
         "default", SEARCH),
    Flag("criterion", ("--criterion",), str, "NAME",
         "What ranks the channels of a group: reconstruction, l1, l2, random, ...",
         "reconstruction", SEARCH),
    Flag("search.strategy", ("--strategy",), str, "NAME",
         "What proposes widths: lagrangian, random, uniform, evolution, ...", "lagrangian", SEARCH),
    Flag("search.candidates", ("--candidates", "-n"), int, "N",
         "Configurations that are repaired and evaluated.", "100", SEARCH),
    Flag("search.min_keep", ("--min-keep",), float, "SHARE",
         "Least share of a group that stays.", "0.1", SEARCH),
    Flag("search.round_to", ("--round-to",), int, "N",
         "Widths are multiples of this number.", "1", SEARCH),
    Flag("search.rank_by", ("--rank-by",), str, "NAME",
         "What ranks candidates: kl (to the dense network), loss or accuracy.", "kl", SEARCH),
    Flag("recovery", ("--recovery",), str, "NAME",
         "How candidates are repaired without training: none, bn, least_squares, ...",
         "least_squares", SEARCH),
    Flag("finalists.count", ("--finalists",), int, "N",
         "Best candidates that are repaired again, with more effort.", "5", SEARCH),
    Flag("finetune.epochs", ("--epochs",), int, "N",
         "Epochs of fine-tuning.", "0, or 3 with any of these", TRAINING),
    Flag("finetune.lr", ("--lr",), float, "RATE", "Peak learning rate.", "0.01", TRAINING),
    Flag("finetune.batch_size", ("--batch-size",), int, "N", "Images a step.", "128", TRAINING),
    Flag("finetune.distill_weight", ("--distill",), float, "SHARE",
         "Share of the loss that compares with the dense network.", "0", TRAINING),
    Flag("seed", ("--seed",), int, "N", "Random seed.", "0", RUN),
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
         "Largest width of a layer over its original one.", "1.5", NETWORK),
    *map(_of_prune, ("data.spec", "data.options.size", "data.options.mean", "data.options.std")),
    _of_prune("data.calibration", text="Training images for batch-norm statistics."),
    _of_prune("data.search"),
    _of_prune("budget.ratio", panel=WIDTHS,
              text="What remains of the original network's cost, in (0, 1]."),
    _of_prune("budget.metric", panel=WIDTHS),
    _of_prune("budget.tolerance", panel=WIDTHS),
    Flag("supernet.epochs", ("--shared-epochs",), int, "N",
         "Epochs of the shared weights.", "20", WIDTHS),
    Flag("supernet.sandwich", ("--sandwich/--no-sandwich",), bool, "",
         "Each step also trains the widest and the narrowest configuration.",
         "no sandwich", WIDTHS),
    _of_prune("search.strategy", panel=WIDTHS, default="random",
              text="What proposes widths: random, uniform, evolution, ..."),
    _of_prune("search.candidates", panel=WIDTHS,
              text="Configurations that are evaluated with shared weights."),
    _of_prune("search.min_keep", panel=WIDTHS, text="Least share of a layer's largest width."),
    _of_prune("search.round_to", panel=WIDTHS),
    Flag("training.epochs", ("--epochs",), int, "N",
         "Epochs of each final training.", "20", FINAL),
    Flag("training.lr", ("--lr",), float, "RATE", "Peak learning rate.", "0.1", FINAL),
    Flag("training.batch_size", ("--batch-size",), int, "N", "Images a step.", "128", FINAL),
    Flag("training.seeds", ("--seeds",), int, "N",
         "How often each network is trained.", "1", FINAL),
    Flag("training.standalone", ("--standalone",), int, "N",
         "More candidates to train alone, for the rank correlation.", "0", FINAL),
    Flag("controls.pretrained", ("--pretrained/--no-pretrained",), bool, "",
         "Also train, prune and fine-tune the original at the same compute.",
         "pretrained", FINAL),
    _of_prune("seed"),
    _of_prune("output.folder"),
)

BENCH = (
    _of_prune("model.spec", names=("--model",), metavar="MODEL", default="the recipe's",
              panel=NETWORK),
    _of_prune("model.weights"),
    _of_prune("data.spec", default="the recipe's"),
    Flag("design.draws", ("--draws",), int, "N",
         "Seeds of configurations.", "the recipe's", RUN),
    Flag("design.trainings", ("--trainings",), int, "N",
         "Trainings of each proposed network.", "the recipe's", RUN),
    _of_prune("seed"),
    Flag("output.workers", ("--workers",), int, "N",
         "Processes that work side by side; 0: everything in this one.", "one per core", RUN),
    _of_prune("output.folder", text="Where the records, the recipe and the tables go."),
)
# fmt: on


def with_flags(flags: Sequence[Flag]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorator that gives a command these flags; its first parameter gets {key: value given}."""

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        parameters = [flag.parameter for flag in flags]

        def run(**values: Any) -> T:
            given = {
                flag.key: values.pop(p.name) for flag, p in zip(flags, parameters, strict=True)
            }
            chosen = {
                flag.key: flag.value(given[flag.key])
                for flag in flags
                if given[flag.key] is not None and given[flag.key] != []
            }
            return command(chosen, **values)

        signature = inspect.Signature(
            [*parameters, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)]
        )
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


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
