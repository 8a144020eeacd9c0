"""Models, endpoints and the predictor processes behind them."""
