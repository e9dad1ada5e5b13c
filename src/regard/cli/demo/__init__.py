"""``regard demo``: from six tokens to a trained model whose heads are looked at, in minutes."""
