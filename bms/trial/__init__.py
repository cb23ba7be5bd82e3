"""Trials: scenarios with faults and expectations, run in closed loop, and the ledger of what came of them."""
