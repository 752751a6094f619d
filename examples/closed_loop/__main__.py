"""Runs the closed loop: `python -m examples.closed_loop`, or `make loop`."""

from pathlib import Path

import click

from pipeline.commands.options import one_line_errors


@click.command()
@click.option("--seed", default=0, show_default=True, help="Seed of training and of the simulated clients.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("loop-report"),
    show_default=True,
    help="Directory that receives the chart and the figures.",
)
@one_line_errors
def main(seed: int, output: Path) -> None:
    """Serve a policy that was trained with too little, learn from what its clients report, and serve the better one."""
    from examples.closed_loop.loop import closed_loop

    closed_loop(seed, output)


if __name__ == "__main__":
    main()
