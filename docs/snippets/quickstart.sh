tunescope run quickstart
