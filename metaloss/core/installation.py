"""The command that installs the packages of an extra."""

from importlib.metadata import PackageNotFoundError, requires


def command(extra: str) -> str:
    """The line that installs an extra's packages, however metaloss itself was installed.

    It names the packages and not metaloss: a copy from a checkout is in no index.
    """
    try:
        lines = requires("metaloss") or []
    except PackageNotFoundError:  # a checkout on the path
        lines = []
    ends = (f'extra == "{extra}"', f"extra == '{extra}'")
    packages = [line.partition(";")[0].strip() for line in lines if line.endswith(ends)]
    if not packages:
        return f"pip install '.[{extra}]' in the checkout"
    return "pip install " + " ".join(f"'{package}'" for package in packages)
