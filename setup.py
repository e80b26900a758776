"""Where `conf` goes in a wheel: into the package, for its name is everyone's. The rest is in `pyproject.toml`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["flsplit*", "strategies*", "compressors*", "experiments*"]), "flsplit.conf"],
    package_dir={"flsplit.conf": "conf"},
    package_data={
        "flsplit.conf": ["**/*.yaml"],
        "experiments": ["**/*.csv", "**/*.md", "py.typed"],
        "flsplit": ["py.typed"],
        "strategies": ["py.typed"],
        "compressors": ["py.typed"],
    },
)
