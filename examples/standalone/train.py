"""One process, no cluster: a scikit-learn classifier of handwritten digits."""

import sys

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from tony import current

EPOCHS = 30
GOAL = 0.95

digits = load_digits()
train_x, test_x, train_y, test_y = train_test_split(digits.data / 16.0, digits.target, test_size=0.2, random_state=0)
model = MLPClassifier(hidden_layer_sizes=(64,), learning_rate_init=0.01, batch_size=50, random_state=0)
for epoch in range(1, EPOCHS + 1):
    model.partial_fit(train_x, train_y, classes=range(10))
    current().report(step=epoch, loss=model.loss_)

accuracy = model.score(test_x, test_y)
print(f"accuracy={accuracy:.3f}", flush=True)
sys.exit(accuracy < GOAL)
