# SPDX-License-Identifier: Apache-2.0
"""xnor-train: train, export, verify."""

from __future__ import annotations

import argparse
import sys

from . import ablation, card, qonnx, samples, training, verify


def main(command_line: list[str] | None = None) -> int:
    command_line = sys.argv[1:] if command_line is None else command_line
    parser = argparse.ArgumentParser(prog="xnor-train", description="Train, export and verify binary neural networks.")
    commands = parser.add_subparsers(dest="command", required=True)
    training.add_commands(commands)
    verify.add_command(commands)
    samples.add_command(commands)
    card.add_command(commands)
    ablation.add_command(commands)
    qonnx.add_command(commands)

    arguments = parser.parse_args(command_line)
    arguments.command_line = command_line
    try:
        return arguments.function(arguments)
    except training.EXPECTED_ERRORS as error:
        return training.refuse(error)
