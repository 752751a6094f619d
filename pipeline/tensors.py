"""Names of the graph's tensors beside observations and actions; serving looks for the same."""

NOISE = "noise"
STATE_IN = "state_in."
STATE_OUT = "state_out."
ACTION_DIST_INPUTS = "action_dist_inputs"
ACTION_LOGP = "action_logp"
VALUES = "values"
