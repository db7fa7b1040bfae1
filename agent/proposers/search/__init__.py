"""Search methods over the hyperparameter block, all behind one ask/tell interface."""
