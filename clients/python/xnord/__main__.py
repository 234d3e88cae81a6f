# SPDX-License-Identifier: Apache-2.0
"""python3 -m xnord FILE...: classify JPEGs, PNGs or raw tensors, a line each: file, class, label, score. xnorctl(1) does more."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from . import Client, Result, __version__
from .client import URL


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python3 -m xnord", description=__doc__, epilog="Exit status: 0 all classified, 1 some were not, 2 wrong command line.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="JPEG, PNG or one raw tensor")
    parser.add_argument("-u", "--url", default=os.environ.get("XNORD_URL") or URL, help=f"the server, or unix:PATH (default $XNORD_URL, else {URL})")
    parser.add_argument("-m", "--model", metavar="NAME", help="model to ask (default: the server's default)")
    parser.add_argument("-k", "--top-k", type=int, default=1, metavar="K", help="show the K best classes (default 1)")
    parser.add_argument("-t", "--timeout-ms", type=int, metavar="MS", help="deadline that the server is asked to keep")
    parser.add_argument("-j", "--json", action="store_true", help="print JSON instead of text for people")
    parser.add_argument("--cacert", metavar="FILE", help="with https, trust the authorities in this PEM file instead of the system's")
    parser.add_argument("--insecure", action="store_true", help="with https, take any certificate")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="send the token in this file (default $XNORD_TOKEN, else none)")
    parser.add_argument("-V", "--version", action="version", version=f"xnord {__version__}")
    return parser.parse_args(words)


def classify(options: argparse.Namespace, client: Client) -> int:
    results, failures = [], []
    outcomes = client.infer_many(options.files, in_flight=4, model=options.model, top_k=options.top_k, deadline_ms=options.timeout_ms)
    for file, outcome in zip(options.files, outcomes):
        if isinstance(outcome, Result):
            results.append({"file": file, **dataclasses.asdict(outcome)})
            if not options.json:
                for one in outcome.top:
                    print(file, one.index, one.label if one.label is not None else "-", f"{one.score:.4f}", sep="\t")
        else:
            failures.append({"file": file, "error": str(outcome)})
            print(f"xnord: {file}: {outcome}", file=sys.stderr)
    if options.json:
        print(json.dumps({"results": results, "failures": failures}, indent=2))
    return 1 if failures else 0


def main(words: list[str] | None = None) -> int:
    options = arguments(words)
    try:
        token = options.token_file.read_text().strip() if options.token_file else os.environ.get("XNORD_TOKEN")
        with Client(options.url, token=token, cacert=options.cacert, insecure=options.insecure) as client:
            return classify(options, client)
    except ValueError as error:  # a URL, a token, that are none
        print(f"xnord: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"xnord: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
