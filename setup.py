"""Where the packages lie in a wheel; everything else is in setup.cfg.

An unrelated ``executor`` exists on the package index: in anybody's site-packages ours are kept below ``tony``.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["tony", "tony.*"]),
        "tony._runtime.appmaster",
        "tony._runtime.executor",
    ],
    package_dir={"tony._runtime.appmaster": "appmaster", "tony._runtime.executor": "executor"},
)
