tunescope init reviews.csv -o study.yaml --model gpt2
tunescope audit reviews.csv --text review --label sentiment
tunescope validate study.yaml
tunescope run study.yaml --output-dir runs/reviews
