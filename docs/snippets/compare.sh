tunescope compare gpt2 tuned \
  --data reviews.csv --text review --label sentiment --lens cka --output-dir runs/compare
