# SPDX-License-Identifier: Apache-2.0
"""Training, export and checking of binary neural networks for xnord."""
