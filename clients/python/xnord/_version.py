# SPDX-License-Identifier: Apache-2.0
"""The version of the project, as the file VERSION at its root has it (a test compares them)."""

VERSION = "0.1.0"
