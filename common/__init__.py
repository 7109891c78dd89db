"""What the four problems share. Importing it makes every command end with one line where the code is not at fault."""
import sys

OWN = ("common", "report", "p1_", "p2_", "p3_", "p4_")  # how the names of our own modules begin
interrupted = "interrupted"  # what Ctrl-C prints; a training run adds how to resume


def one_line(kind, error, trace):
    """Print one line for Ctrl-C, a missing or old package, too little memory or an error of the system.

    Anything else is a fault of the code and gets its traceback.
    """
    torch_version = getattr(sys.modules.get("torch"), "__version__", "2.6")  # torch's own type knows that 2.10 > 2.6
    if issubclass(kind, KeyboardInterrupt):
        message = interrupted
    elif issubclass(kind, ModuleNotFoundError) and not str(error.name).startswith(OWN):
        message = f"error: the package {error.name} is not installed: python3 -m pip install -r requirements.txt"
    elif torch_version < "2.6":
        message = f"error: torch 2.6 or newer is needed, this is {torch_version}"
    elif issubclass(kind, MemoryError) or issubclass(kind, RuntimeError) and "allocate" in str(error):
        message = "error: not enough memory; training needs less with a smaller --batch-size or --width"
    elif issubclass(kind, OSError):
        message = f"error: {error}"
    else:
        return sys.__excepthook__(kind, error, trace)
    print(message, file=sys.stderr)


sys.excepthook = one_line
