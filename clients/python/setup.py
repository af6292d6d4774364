"""Makes the messages of proto/ part of the package; the rest is in pyproject.toml."""

import pathlib

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent


class BuildWithMessages(build_py):
    def run(self):
        super().run()
        import sys

        sys.path.insert(0, str(HERE))
        import generate_messages

        generate_messages.generate(pathlib.Path(self.build_lib))


setup(cmdclass={"build_py": BuildWithMessages})
