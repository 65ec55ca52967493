tunescope export runs/compare --to paper --width 3.3in --texts none
