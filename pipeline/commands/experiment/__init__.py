"""The commands of experiments, which compare a challenger with the champion on live episodes."""
