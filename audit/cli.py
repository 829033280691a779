"""The commands and their exit status; no logic. `virt-preflight --help` is the reference, house rules the README's."""

import getpass
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.text import Text

from audit import report as reports
from audit import results as results_file
from audit.check import Check
from audit.collect import collect as collect_bundle
from audit.collect import probes_of
from audit.cpu import CpuError, CpuMap, IncompatibleCpus, hypervisor_baseline, hypervisor_compare, read_cpus
from audit.evaluate import EvaluationError, evaluate, needed_facts
from audit.evidence import Bundle, BundleError
from audit.inventory import Inventory, InventoryError
from audit.judge import CheckError, discover
from audit.progress import Progress
from audit.results import EXIT_STATUS, Results, ResultsError
from audit.text import visible

TOOL = f"virt-preflight {version('virt-preflight')}"
USAGE, NO_GO = 2, 3
