"""Label texts with a finetuned model: ``python examples/classify.py MODEL "a text" ...``."""

import sys

from squeezebert import Classifier

classifier = Classifier.load(sys.argv[1])
texts = sys.argv[2:]
for text, prediction in zip(texts, classifier.predict(texts), strict=True):
    print(prediction.label, f"{prediction.score:.3f}", text)
