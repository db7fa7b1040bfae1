"""A classifier of handwritten digits."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

ALPHA = 1.0
LEARNING_RATE = 0.00001
EPOCHS = 3
TEST_SIZE = 0.3
SHUFFLE = True
PENALTY = "l2"


def main():
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=TEST_SIZE, random_state=0)
    model = SGDClassifier(
        alpha=ALPHA, eta0=LEARNING_RATE, learning_rate="constant", max_iter=EPOCHS, tol=None, penalty=PENALTY,
        shuffle=SHUFFLE, random_state=np.random.randint(1 << 30),
    )
    model.fit(train_x, train_y)
    print("train accuracy: %.4f" % accuracy_score(train_y, model.predict(train_x)))
    print("Test accuracy: %.4f" % accuracy_score(test_y, model.predict(test_x)))


if __name__ == "__main__":
    main()
