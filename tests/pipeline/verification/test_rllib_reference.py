"""The private part of RLlib that the reference uses still exists."""

from ray.rllib.connectors.env_to_module import MeanStdFilter


def test_rllibs_filter_has_the_switch_that_stops_its_updates():
    connector = MeanStdFilter(update_stats=False)
    assert connector._update_stats is False, (
        "Written for Ray 2.60: without this attribute, verification updates the filter that it compares with. "
        "Look for its successor in MeanStdFilter.__init__ and change pipeline/verification/rllib_reference.py."
    )
