"""Exports an RLModule as a self-contained ONNX graph: filter, network, recurrent state and action distribution."""
